//! What the tests of this crate share: JSON as codec, and an operator that can be restarted.

#![allow(dead_code)]

use annals_streams::{Changes, Codec, Input, Operator, Output, Place, State, StateError, Time};
use serde::{Serialize, de::DeserializeOwned};

pub(crate) struct Json;

impl Codec for Json {
    fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, StateError> {
        serde_json::to_vec(value).map_err(|error| StateError::new(error.to_string()))
    }

    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StateError> {
        serde_json::from_slice(bytes).map_err(|error| StateError::new(error.to_string()))
    }
}

pub(crate) fn restore<S: State>(mut into: S, saved: &Changes, watermark: Time) -> S {
    for (address, value) in saved.iter() {
        let value = value.expect("a snapshot holds values");
        into.restore::<Json>(&address.key, &address.place, value)
            .unwrap();
    }
    into.resume(watermark);
    into
}

pub(crate) fn snapshot<S: State>(of: &S) -> Changes {
    let mut saved = Changes::new();
    of.snapshot::<Json>(&mut saved).unwrap();
    saved
}

/// An operator with its watermark, counted places, and a way to make an empty one like it.
pub(crate) struct Run<O: Operator> {
    make: Box<dyn Fn() -> O>,
    pub(crate) operator: O,
    pub(crate) watermark: Time,
    pub(crate) out: Output<O::Out, O::Late>,
    position: u64,
    /// Restarts after every item, and keeps a journal of changes beside it.
    pub(crate) restarting: bool,
    journal: Changes,
}

impl<O: Operator + State> Run<O> {
    pub(crate) fn new(make: impl Fn() -> O + 'static) -> Self {
        Self {
            operator: make(),
            make: Box::new(make),
            watermark: Time::MIN,
            out: Output::new(),
            position: 0,
            restarting: false,
            journal: Changes::new(),
        }
    }

    pub(crate) fn restarting(mut self, restarting: bool) -> Self {
        self.restarting = restarting;
        self
    }

    /// Encodes all state, drops the operator and decodes it again; the journal of changes has to
    /// hold the same.
    pub(crate) fn restart(&mut self) {
        let mut newer = Changes::new();
        self.operator.changes::<Json>(&mut newer).unwrap();
        self.journal.apply(newer);
        let saved = snapshot(&self.operator);
        let entries = |changes: &Changes| {
            let entries = changes
                .iter()
                .map(|(address, value)| (address.clone(), value.map(<[u8]>::to_vec)));
            entries.collect::<Vec<_>>()
        };
        assert_eq!(
            entries(&self.journal),
            entries(&saved),
            "the journal and the state differ"
        );
        self.operator = restore((self.make)(), &saved, self.watermark);
        assert_eq!(
            snapshot(&self.operator),
            saved,
            "the state after loading is another one"
        );
    }

    pub(crate) fn advance(&mut self, watermark: i64) {
        self.watermark = self.watermark.max(Time::from_micros(watermark));
        self.operator.advance(self.watermark, &mut self.out);
        if self.restarting {
            self.restart();
        }
    }

    /// Takes an item at the watermark as it is.
    pub(crate) fn put(&mut self, time: i64, item: &O::In) {
        self.position += 1;
        let input = Input {
            watermark: self.watermark,
            time: Time::from_micros(time),
            place: Place::at(self.position),
            item,
        };
        self.operator.process(input, &mut self.out);
        self.operator.flush(&mut self.out);
        if self.restarting {
            self.restart();
        }
    }

    /// Takes an item that itself moves the watermark.
    pub(crate) fn put_at(&mut self, watermark: i64, time: i64, item: &O::In) {
        self.watermark = self.watermark.max(Time::from_micros(watermark));
        self.put(time, item);
    }
}
