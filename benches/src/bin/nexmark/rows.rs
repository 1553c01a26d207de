//! Views whose rows are lines of text.

use std::error::Error;

use annals::prelude::*;
use annals::projections::Program;

/// A view whose rows are lines of text.
pub(crate) trait Lines: View {
    fn lines(self) -> Vec<String>;
}

/// Views of lines, by their names and keys.
macro_rules! text_rows {
    ($($name:ident = $stored:literal by $key:ty,)*) => {$(
        #[derive(Clone, Debug, Default, Serialize, Deserialize, View)]
        #[view(name = $stored, key = $key)]
        pub(crate) struct $name {
            pub(crate) rows: Vec<String>,
        }

        impl Lines for $name {
            fn lines(self) -> Vec<String> {
                self.rows
            }
        }
    )*};
}

pub(crate) use text_rows;

/// All lines of a view, sorted.
pub(crate) async fn of<V: Lines>(db: &Program) -> Result<Vec<String>, Box<dyn Error>> {
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let page = db.view::<V>().rows().limit(10_000).after(after).await?;
        all.extend(page.rows.into_iter().flat_map(|row| row.value.lines()));
        match page.next {
            None => break,
            next => after = next,
        }
    }
    all.sort_unstable();
    Ok(all)
}
