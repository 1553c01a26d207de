//! Stages without state.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::{Batch, Panic, Saved, Stage};
use crate::{Changes, Codec, Row, StateError, Time};

/// A stage without state: for each item any number of others, with its cause and its time; or one
/// at another time.
///
/// ```
/// use annals_streams::{Codec, Each, Stage};
///
/// fn words<C: Codec>(then: Box<dyn Stage<String, C>>) -> impl Stage<String, C> {
///     Each::flat(
///         |line: &String, emit: &mut dyn FnMut(String)| {
///             line.split(' ').for_each(|word| emit(word.to_string()));
///         },
///         then,
///     )
/// }
/// ```
pub struct Each<T, U, C> {
    each: EachOf<T, U>,
    out: Vec<Row<U>>,
    then: Box<dyn Stage<U, C>>,
    on_panic: Option<OnPanic<T>>,
}

type OnPanic<T> = Box<dyn Fn(&Row<T>, Panic) + Send>;
type EachOf<T, U> = Box<dyn Fn(&Row<T>, &mut Vec<Row<U>>) + Send + Sync>;

impl<T, U, C: Codec> Each<T, U, C> {
    /// Whatever `each` emits.
    ///
    /// ```
    /// # use annals_streams::{Codec, Each, Stage};
    /// fn twice<C: Codec>(then: Box<dyn Stage<u8, C>>) -> Each<u8, u8, C> {
    ///     Each::flat(|item, emit| { emit(*item); emit(*item) }, then)
    /// }
    /// ```
    pub fn flat(
        each: impl Fn(&T, &mut dyn FnMut(U)) + Send + Sync + 'static,
        then: Box<dyn Stage<U, C>>,
    ) -> Self {
        Self::rows(
            move |row, out| {
                let when = row.when;
                let time = row.time;
                each(&row.item, &mut |item| out.push(Row { when, time, item }));
            },
            then,
        )
    }

    fn rows(
        each: impl Fn(&Row<T>, &mut Vec<Row<U>>) + Send + Sync + 'static,
        then: Box<dyn Stage<U, C>>,
    ) -> Self {
        Self {
            each: Box::new(each),
            out: Vec::new(),
            then,
            on_panic: None,
        }
    }

    /// An item over which the code panics is skipped and reported here; otherwise the panic goes
    /// on.
    ///
    /// ```
    /// # use annals_streams::{Codec, Each, Row, Stage};
    /// fn halves<C: Codec>(then: Box<dyn Stage<i64, C>>) -> Each<i64, i64, C> {
    ///     let halves = Each::map(|item| 100 / item, then);
    ///     halves.on_panic(|row: &Row<i64>, _| eprintln!("no half of {}", row.item))
    /// }
    /// ```
    #[must_use]
    pub fn on_panic(mut self, told: impl Fn(&Row<T>, Panic) + Send + 'static) -> Self {
        self.on_panic = Some(Box::new(told));
        self
    }

    /// Goes through the rows; after a panic it goes on with the next one.
    fn go_through(&self, from: &[Row<T>], out: &mut Vec<Row<U>>) {
        let mut done = 0;
        while done < from.len() {
            let mut emitted = out.len();
            let went = catch_unwind(AssertUnwindSafe(|| {
                for row in &from[done..] {
                    emitted = out.len();
                    (self.each)(row, out);
                    done += 1;
                }
            }));
            if let Err(panic) = went {
                let Some(told) = &self.on_panic else {
                    resume_unwind(panic)
                };
                out.truncate(emitted);
                told(&from[done], panic);
                done += 1;
            }
        }
    }

    /// One item for each.
    ///
    /// ```
    /// # use annals_streams::{Codec, Each, Stage};
    /// fn keyed<C: Codec>(then: Box<dyn Stage<(u8, i64), C>>) -> Each<i64, (u8, i64), C> {
    ///     Each::map(|item| ((item % 10) as u8, *item), then)
    /// }
    /// ```
    pub fn map(map: impl Fn(&T) -> U + Send + Sync + 'static, then: Box<dyn Stage<U, C>>) -> Self {
        Self::flat(move |item, emit| emit(map(item)), then)
    }

    /// One item or none for each.
    ///
    /// ```
    /// # use annals_streams::{Codec, Each, Stage};
    /// fn even<C: Codec>(then: Box<dyn Stage<i64, C>>) -> Each<i64, i64, C> {
    ///     Each::filter_map(|item| (item % 2 == 0).then_some(*item), then)
    /// }
    /// ```
    pub fn filter_map(
        map: impl Fn(&T) -> Option<U> + Send + Sync + 'static,
        then: Box<dyn Stage<U, C>>,
    ) -> Self {
        Self::flat(
            move |item, emit| {
                if let Some(item) = map(item) {
                    emit(item);
                }
            },
            then,
        )
    }

    /// One item or none for each, at the time that `each` says.
    ///
    /// ```
    /// # use annals_streams::{Codec, Each, Row, Span, Stage};
    /// fn later<C: Codec>(then: Box<dyn Stage<u8, C>>) -> Each<u8, u8, C> {
    ///     let minute = Span::from_micros(60_000_000);
    ///     Each::retimed(move |row: &Row<u8>| Some((row.time + minute, row.item)), then)
    /// }
    /// ```
    pub fn retimed(
        each: impl Fn(&Row<T>) -> Option<(Time, U)> + Send + Sync + 'static,
        then: Box<dyn Stage<U, C>>,
    ) -> Self {
        Self::rows(
            move |row, out| {
                let when = row.when;
                out.extend(each(row).map(|(time, item)| Row { when, time, item }));
            },
            then,
        )
    }
}

impl<T, U: Send, C: Codec> Stage<T, C> for Each<T, U, C> {
    fn take(&mut self, batch: &Batch<T>) {
        let mut rows = std::mem::take(&mut self.out);
        self.go_through(&batch.rows, &mut rows);
        Batch::send(&batch.page, &mut rows, &mut *self.then);
        self.out = rows;
    }
}

impl<T, U: Send, C: Codec> Saved for Each<T, U, C> {
    fn save(&mut self, to: &mut Changes) -> Result<(), StateError> {
        self.then.save(to)
    }

    fn load(
        &mut self,
        stage: u16,
        key: &[u8],
        place: &[u8],
        value: &[u8],
    ) -> Result<bool, StateError> {
        self.then.load(stage, key, place, value)
    }

    fn resume(&mut self, watermark: Time) {
        self.then.resume(watermark);
    }
}
