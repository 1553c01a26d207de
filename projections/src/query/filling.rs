//! Pages of rows that are folded while they are read: as bounded in bytes as those of a store.

use annals_core::PAGE_BYTES_MAX;

/// Rows read before their size is known.
const FIRST_ROWS: usize = 8;

/// Rows read at once at most: the next ones may be larger than all before.
const ROWS_MAX: usize = 256;

/// How full a page is.
#[derive(Debug, Default)]
pub(super) struct Filling {
    rows: usize,
    bytes: usize,
}

impl Filling {
    /// How many rows are read next, at most: as many as are likely to fit.
    pub(super) fn rows_next(&self) -> usize {
        let Some(bytes_each) = self.bytes.checked_div(self.rows) else {
            return FIRST_ROWS;
        };
        let left = PAGE_BYTES_MAX.saturating_sub(self.bytes);
        let most = self.rows.clamp(FIRST_ROWS, ROWS_MAX);
        (left / bytes_each.max(1)).clamp(1, most)
    }

    /// One more row of so many bytes was read.
    pub(super) fn take(&mut self, bytes: usize) {
        self.rows += 1;
        self.bytes += bytes;
    }

    /// Whether the page ends with the row that was taken last.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= PAGE_BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_ends_with_the_row_that_fills_it() {
        let mut filling = Filling::default();
        assert_eq!(filling.rows_next(), FIRST_ROWS);
        filling.take(PAGE_BYTES_MAX - 1);
        assert!(!filling.is_full());
        assert_eq!(filling.rows_next(), 1);
        filling.take(1);
        assert!(filling.is_full());
    }

    #[test]
    fn no_more_rows_are_read_next_than_were_read_so_far() {
        let mut filling = Filling::default();
        for next in [8, 8, 16, 32, 64, 128, 256, 256] {
            assert_eq!(filling.rows_next(), next);
            (0..next).for_each(|_| filling.take(20));
        }
    }
}
