//! The envelope: what a message of Debezium holds, before its values are read.

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::types::Semantic;

/// A message, as a topic or a file of JSON lines has it.
///
/// ```
/// use annals_cdc::debezium::DebeziumMessage;
///
/// let line = r#"{"topic":"srv.public.t","key":{"id":1},"value":null}"#;
/// let message: DebeziumMessage = serde_json::from_str(line)?;
/// assert_eq!(message.topic, "srv.public.t");
/// # Ok::<_, serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct DebeziumMessage {
    /// The topic.
    pub topic: String,
    /// Its partition.
    #[serde(default)]
    pub partition: u32,
    /// Its offset in the partition.
    #[serde(default)]
    pub offset: Option<u64>,
    /// The key, as JSON.
    #[serde(default)]
    pub key: Option<Box<RawValue>>,
    /// The value, as JSON; nothing in a tombstone.
    #[serde(default)]
    pub value: Option<Box<RawValue>>,
    /// The headers, as JSON.
    #[serde(default)]
    pub(super) headers: Members,
}

impl DebeziumMessage {
    /// A message of a topic.
    ///
    /// ```
    /// use annals_cdc::debezium::DebeziumMessage;
    ///
    /// let tombstone = DebeziumMessage::new("srv.public.t", Some(r#"{"id":1}"#), None)?;
    /// assert!(tombstone.value.is_none());
    /// # Ok::<_, serde_json::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When a text is no JSON.
    pub fn new(
        topic: &str,
        key: Option<&str>,
        value: Option<&str>,
    ) -> Result<DebeziumMessage, serde_json::Error> {
        let raw = |json: Option<&str>| json.map(serde_json::from_str).transpose();
        Ok(DebeziumMessage {
            topic: topic.to_owned(),
            partition: 0,
            offset: None,
            key: raw(key)?,
            value: raw(value)?,
            headers: Members::default(),
        })
    }

    /// With a header, as JSON.
    ///
    /// # Errors
    ///
    /// When the text is no JSON.
    ///
    /// ```
    /// use annals_cdc::debezium::DebeziumMessage;
    ///
    /// let message = DebeziumMessage::new("srv.public.t", None, None)?
    ///     .header("__debezium.newkey", r#"{"id":2}"#)?;
    /// # assert!(message.value.is_none());
    /// # Ok::<_, serde_json::Error>(())
    /// ```
    pub fn header(mut self, name: &str, json: &str) -> Result<DebeziumMessage, serde_json::Error> {
        self.headers
            .0
            .push((name.to_owned(), serde_json::from_str(json)?));
        Ok(self)
    }
}

/// A message that is no envelope.
///
/// ```
/// use annals_cdc::debezium::{Adapter, DebeziumMessage};
///
/// let message = DebeziumMessage::new("srv.public.t", None, Some("7"))?;
/// let error = Adapter::default().take(&message).unwrap_err();
/// assert!(error.to_string().starts_with("a message of topic `srv.public.t`"));
/// # Ok::<_, serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message of topic `{topic}` cannot be read: {what}")]
pub struct MalformedEnvelope {
    /// The topic.
    pub topic: String,
    /// What is wrong.
    pub what: String,
}

/// The members of a JSON object, in order, not yet read.
#[derive(Clone, Debug, Default)]
pub(super) struct Members(pub(super) Vec<(String, Box<RawValue>)>);

impl Members {
    pub(super) fn get(&self, name: &str) -> Option<&RawValue> {
        let (_, value) = self.0.iter().find(|(of, _)| of == name)?;
        Some(value)
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Members, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_unit<E>(self) -> Result<Members, E> {
                Ok(Members::default())
            }

            // The connector of MongoDB writes a document as JSON in a text.
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Members, E> {
                serde_json::from_str(text).map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_any(InOrder)
    }
}

/// A value with the schema that it may be wrapped in.
pub(super) struct Wrapped<'a> {
    pub(super) payload: &'a str,
    pub(super) schema: Option<Schema>,
}

/// A schema of Kafka Connect, as far as it is of use.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Schema {
    #[serde(default)]
    fields: Vec<Schema>,
    #[serde(default)]
    field: String,
    #[serde(default, rename = "type")]
    kind: Option<Value>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    parameters: Option<Parameters>,
    #[serde(default)]
    items: Option<Box<Schema>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Parameters {
    #[serde(default)]
    scale: Option<Value>,
}

impl Schema {
    /// The schema of a field.
    pub(super) fn field(&self, name: &str) -> Option<&Schema> {
        self.fields.iter().find(|field| field.field == name)
    }

    pub(super) fn semantic(&self) -> Semantic {
        // Of an array, what its elements are.
        if let (None, Some(items)) = (&self.name, &self.items) {
            return items.semantic();
        }
        let scale = self.parameters.as_ref().and_then(|of| of.scale.as_ref());
        let scale = scale.and_then(|scale| match scale {
            serde_json::Value::String(text) => text.parse().ok(),
            value => value.as_u64().and_then(|scale| u32::try_from(scale).ok()),
        });
        let kind = self.kind.as_ref().and_then(serde_json::Value::as_str);
        let name = self.name.as_deref().or(kind).unwrap_or_default();
        Semantic::of_schema(name, scale)
    }
}

/// A value, taken out of its wrapper: an object of exactly `schema` and `payload`.
pub(super) fn unwrapped(value: &RawValue) -> Result<Wrapped<'_>, String> {
    #[derive(Deserialize)]
    struct Wrapper<'a> {
        #[serde(borrow)]
        schema: &'a RawValue,
        #[serde(borrow)]
        payload: &'a RawValue,
    }
    let json = value.get();
    let is_wrapped = json.starts_with('{')
        && serde_json::from_str::<Members>(json).is_ok_and(|members| {
            let named = |name| members.get(name).is_some();
            members.0.len() == 2 && named("schema") && named("payload")
        });
    if !is_wrapped {
        return Ok(Wrapped {
            payload: json,
            schema: None,
        });
    }
    let wrapper: Wrapper<'_> = serde_json::from_str(json).map_err(|error| error.to_string())?;
    let schema = serde_json::from_str::<Option<Schema>>(wrapper.schema.get());
    Ok(Wrapped {
        payload: wrapper.payload.get(),
        schema: schema.map_err(|error| format!("its schema: {error}"))?,
    })
}

/// The content of an envelope.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Envelope {
    pub(super) op: Option<String>,
    pub(super) before: Option<Members>,
    pub(super) after: Option<Members>,
    pub(super) source: Option<Source>,
    pub(super) message: Option<Content>,
    // Of messages that are no changes.
    pub(super) ts_ms: Option<i64>,
    pub(super) status: Option<String>,
    pub(super) ddl: Option<Box<RawValue>>,
}

/// Where a change comes from.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Source {
    pub(super) name: Option<String>,
    pub(super) db: Option<String>,
    pub(super) schema: Option<String>,
    pub(super) table: Option<String>,
    pub(super) collection: Option<String>,
    // A number, or a text where the database has no number for it.
    #[serde(rename = "txId")]
    pub(super) tx_id: Option<Value>,
    pub(super) lsn: Option<Value>,
    pub(super) sequence: Option<String>,
    // MySQL and MariaDB.
    pub(super) gtid: Option<Value>,
    pub(super) file: Option<Value>,
    pub(super) pos: Option<Value>,
    pub(super) row: Option<Value>,
    // SQL Server, Db2, Informix.
    pub(super) commit_lsn: Option<Value>,
    pub(super) change_lsn: Option<Value>,
    pub(super) event_serial_no: Option<Value>,
    // Oracle.
    pub(super) commit_scn: Option<Value>,
    pub(super) scn: Option<Value>,
    pub(super) rs_id: Option<Value>,
    pub(super) ssn: Option<Value>,
    // MongoDB.
    pub(super) ord: Option<Value>,
    pub(super) snapshot: Option<Value>,
    pub(super) ts_ms: Option<i64>,
    pub(super) ts_us: Option<i64>,
}

impl Source {
    /// Where the change is in the log of its database: of each connector what it says.
    pub(super) fn position(&self) -> String {
        let said = [
            &self.tx_id,
            &self.lsn,
            &self.gtid,
            &self.file,
            &self.pos,
            &self.row,
            &self.commit_lsn,
            &self.change_lsn,
            &self.event_serial_no,
            &self.commit_scn,
            &self.scn,
            &self.rs_id,
            &self.ssn,
            &self.ord,
        ];
        let mut position = self.sequence.clone().unwrap_or_default();
        for value in said {
            position.push(' ');
            if let Some(value) = value {
                position.push_str(&value.to_string());
            }
        }
        position
    }

    /// Whether no other row of its statement has this position.
    pub(super) fn is_of_one_row(&self) -> bool {
        self.pos.is_some() && self.row.is_some()
            || self.change_lsn.is_some() && self.event_serial_no.is_some()
            || self.rs_id.is_some() && self.ssn.is_some()
    }

    /// Whether no other change of the same row has this position.
    pub(super) fn is_of_one_change(&self) -> bool {
        self.is_of_one_row() || self.lsn.is_some() || self.change_lsn.is_some()
    }
}

/// A logical message.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Content {
    pub(super) prefix: String,
    pub(super) content: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_of_mongodb_is_read_out_of_its_text() {
        let value = r#"{"op":"c","before":null,"after":"{\"_id\":{\"$oid\":\"6\"},\"n\":7}"}"#;
        let envelope: Envelope = serde_json::from_str(value).unwrap();
        assert!(envelope.before.is_none());
        let after = envelope.after.unwrap();
        assert_eq!(after.get("_id").map(RawValue::get), Some(r#"{"$oid":"6"}"#));
        assert_eq!(after.get("n").map(RawValue::get), Some("7"));
    }
}
