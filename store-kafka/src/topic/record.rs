//! Records: those that are sent, and those that were read.

use std::borrow::Cow;

use annals_core::chrono::{DateTime, Utc};
use annals_core::{Codec as _, Invalid, Json};
use bytes::Bytes;
use rdkafka::producer::BaseRecord;
use rdkafka::util::IntoOpaque;
use serde::Serialize;

use crate::client::headers;

/// A record to be sent.
///
/// ```
/// use annals_kafka::NewRecord;
///
/// let click = NewRecord::to("clicks").key("ada").value(r#"{"page":"/"}"#).header("trace", "7");
/// let gone = NewRecord::to("balances").key("ada").tombstone();
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRecord {
    pub(crate) topic: String,
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
    pub(crate) headers: Vec<(Cow<'static, str>, Option<Bytes>)>,
    pub(crate) partition: Option<u32>,
    pub(crate) time: Option<DateTime<Utc>>,
}

impl NewRecord {
    /// To this topic, with an empty value and no key.
    pub fn to(topic: impl Into<String>) -> NewRecord {
        NewRecord {
            topic: topic.into(),
            key: None,
            value: Some(Bytes::new()),
            headers: Vec::new(),
            partition: None,
            time: None,
        }
    }

    /// Records of one key keep their order.
    #[must_use]
    pub fn key(mut self, key: impl Into<Vec<u8>>) -> NewRecord {
        self.key = Some(Bytes::from(key.into()));
        self
    }

    /// With this value.
    #[must_use]
    pub fn value(mut self, value: impl Into<Vec<u8>>) -> NewRecord {
        self.value = Some(Bytes::from(value.into()));
        self
    }

    /// With this value as JSON.
    ///
    /// # Errors
    ///
    /// [`Invalid`] when the value has no JSON form.
    pub fn json<T: Serialize>(self, value: &T) -> Result<NewRecord, Invalid> {
        let json = Json::encode(value).map_err(|error| Invalid::new(error.to_string()))?;
        Ok(self.value(json))
    }

    /// Without a value: what had this key is gone.
    #[must_use]
    pub fn tombstone(mut self) -> NewRecord {
        self.value = None;
        self
    }

    /// With a header more; names may repeat.
    #[must_use]
    pub fn header(
        mut self,
        name: impl Into<Cow<'static, str>>,
        value: impl Into<Vec<u8>>,
    ) -> NewRecord {
        self.headers
            .push((name.into(), Some(Bytes::from(value.into()))));
        self
    }

    /// To this partition, whatever the key.
    #[must_use]
    pub fn partition(mut self, partition: u32) -> NewRecord {
        self.partition = Some(partition);
        self
    }

    /// Created at this time instead of now. A topic refuses what is more than an hour ahead
    /// (`message.timestamp.after.max.ms`), and its retention counts from this time.
    #[must_use]
    pub fn at(mut self, time: DateTime<Utc>) -> NewRecord {
        self.time = Some(time);
        self
    }

    /// The record as the client takes it.
    pub(crate) fn fill<'a, D: IntoOpaque>(
        &'a self,
        mut base: BaseRecord<'a, [u8], [u8], D>,
    ) -> BaseRecord<'a, [u8], [u8], D> {
        if let Some(key) = &self.key {
            base = base.key(&key[..]);
        }
        if let Some(value) = &self.value {
            base = base.payload(&value[..]);
        }
        if let Some(partition) = self.partition {
            base = base.partition(partition.cast_signed());
        }
        if let Some(time) = self.time {
            base = base.timestamp(time.timestamp_millis());
        }
        if !self.headers.is_empty() {
            let named = self.headers.iter();
            base = base.headers(headers(
                named.map(|(name, value)| (&**name, value.as_deref())),
            ));
        }
        base
    }
}

/// A record that was read, for functions that look at it: what type it is, when it happened.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    pub(crate) partition: u32,
    pub(crate) offset: i64,
    pub(crate) time_ms: i64,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: &'a [(String, Option<Bytes>)],
}

impl<'a> Record<'a> {
    /// Its partition.
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// Its offset in the partition.
    pub fn offset(&self) -> i64 {
        self.offset
    }

    /// Its time, in milliseconds since 1970.
    pub fn time_ms(&self) -> i64 {
        self.time_ms
    }

    /// Its key, when it has one.
    pub fn key(&self) -> Option<&'a [u8]> {
        self.key
    }

    /// Its value; nothing for a tombstone.
    pub fn value(&self) -> Option<&'a [u8]> {
        self.value
    }

    /// The last header of this name that has a value.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        let found = self.headers.iter().rev().find(|(known, _)| known == name);
        found.and_then(|(_, value)| value.as_deref())
    }
}
