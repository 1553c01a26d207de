//! State as pieces, each with a mark of what was saved.

use super::{Address, Changes, Codec, State, written};
use super::{Bytes, Part};
use crate::{Key, StateError, Time};

/// What an operator remembers of a piece between two commits.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mark {
    changed: bool,
    saved: bool,
}

impl Mark {
    const SAVED: Mark = Mark {
        changed: false,
        saved: true,
    };
}

/// Which pieces changed. Follows nothing until it is asked for the first time, so that those who
/// never save pay nothing.
#[derive(Debug)]
pub(crate) struct Marks<A> {
    following: bool,
    changed: Vec<A>,
    removed: Vec<A>,
}

impl<A> Default for Marks<A> {
    fn default() -> Self {
        Self {
            following: false,
            changed: Vec::new(),
            removed: Vec::new(),
        }
    }
}

impl<A> Marks<A> {
    pub(crate) fn change(&mut self, mark: &mut Mark, at: impl FnOnce() -> A) {
        if self.following && !mark.changed {
            mark.changed = true;
            self.changed.push(at());
        }
    }

    pub(crate) fn remove(&mut self, mark: Mark, at: impl FnOnce() -> A) {
        if mark.saved {
            self.removed.push(at());
        }
    }
}

/// An operator as the pieces that its state is made of; [`State`] follows from it.
pub(crate) trait Pieces {
    type Key: Key;
    type Part: Part;

    fn marks(&mut self) -> &mut Marks<(Self::Key, Self::Part)>;

    /// All pieces that exist, in any order.
    fn pieces(&self) -> Vec<(Self::Key, Self::Part)>;

    fn mark(&mut self, key: &Self::Key, part: &Self::Part) -> Option<&mut Mark>;

    fn value<C: Codec>(
        &self,
        key: &Self::Key,
        part: &Self::Part,
    ) -> Result<Option<Vec<u8>>, StateError>;

    fn put_back<C: Codec>(
        &mut self,
        key: Self::Key,
        part: Self::Part,
        value: Bytes<'_>,
    ) -> Result<(), StateError>;

    /// Everything is back: make timers and what else follows from the pieces.
    fn resumed(&mut self, watermark: Time);
}

fn address<C: Codec, P: Pieces>(
    stage: u16,
    key: &P::Key,
    part: &P::Part,
) -> Result<Address, StateError> {
    let mut place = Vec::new();
    part.write::<C>(&mut place)?;
    Ok(Address {
        stage,
        key: written::<C, P::Key>(key)?,
        place,
    })
}

impl<P: Pieces> State for P {
    fn snapshot<C: Codec>(&self, to: &mut Changes) -> Result<(), StateError> {
        for (key, part) in self.pieces() {
            let value = self.value::<C>(&key, &part)?;
            to.set(address::<C, P>(to.stage, &key, &part)?, value);
        }
        Ok(())
    }

    fn changes<C: Codec>(&mut self, to: &mut Changes) -> Result<(), StateError> {
        let was_following = std::mem::replace(&mut self.marks().following, true);
        let changed = std::mem::take(&mut self.marks().changed);
        let removed = std::mem::take(&mut self.marks().removed);
        let candidates = if was_following {
            changed
        } else {
            self.pieces()
        };
        for (key, part) in removed {
            to.set(address::<C, P>(to.stage, &key, &part)?, None);
        }
        // A piece that was removed and made again is found here, and its value is what counts.
        for (key, part) in candidates {
            let Some(mark) = self.mark(&key, &part) else {
                continue;
            };
            *mark = Mark::SAVED;
            let value = self.value::<C>(&key, &part)?;
            to.set(address::<C, P>(to.stage, &key, &part)?, value);
        }
        Ok(())
    }

    fn restore<C: Codec>(
        &mut self,
        key: &[u8],
        place: &[u8],
        value: &[u8],
    ) -> Result<(), StateError> {
        let key: P::Key = C::decode(key)?;
        let part = P::Part::read::<C>(&mut Bytes(place))?;
        self.put_back::<C>(key.clone(), part.clone(), Bytes(value))?;
        if let Some(mark) = self.mark(&key, &part) {
            *mark = Mark::SAVED;
        }
        Ok(())
    }

    fn resume(&mut self, watermark: Time) {
        // What was loaded is what the store has: from here on changes are followed.
        self.marks().following = true;
        self.resumed(watermark);
    }
}
