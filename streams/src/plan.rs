//! A pipeline as data: the names, kinds and parameters of its stages.

use crate::ConfigError;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt::Write};

/// The stages of a pipeline and what they are made with, without closures.
///
/// Two plans are equal when the pipelines keep the same state, as far as that can be seen without
/// looking into functions; [`Plan::canonical`] is the text to take a digest of.
///
/// ```
/// use annals_streams::{Plan, PlannedStage};
///
/// let mut plan = Plan::new("sales", 1);
/// let source = plan.add(PlannedStage::new("events", "ShopEvent"))?;
/// let windows = PlannedStage::new("tumbling", "Sales").after(source).with("size", 60_000_000);
/// plan.add(windows)?;
/// let text = plan.canonical();
/// assert!(text.ends_with("1 tumbling Sales after=[0] size=60000000\n"));
/// # Ok::<(), annals_streams::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    name: String,
    version: u32,
    stages: Vec<PlannedStage>,
}

/// One stage of a plan.
///
/// ```
/// use annals_streams::PlannedStage;
///
/// let stage = PlannedStage::new("sessions", "Visit").with("gap", 1_800_000_000);
/// assert_eq!(stage.kind(), "sessions");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedStage {
    kind: String,
    of: String,
    after: Vec<u16>,
    parameters: BTreeMap<String, i64>,
}

impl PlannedStage {
    /// A stage of this kind over this type or view.
    ///
    /// ```
    /// # use annals_streams::PlannedStage;
    /// PlannedStage::new("into_view", "sales");
    /// ```
    pub fn new(kind: impl Into<String>, of: impl Into<String>) -> Self {
        let parameters = BTreeMap::new();
        Self {
            kind: kind.into(),
            of: of.into(),
            after: Vec::new(),
            parameters,
        }
    }

    /// Takes what that stage emits.
    ///
    /// ```
    /// # use annals_streams::PlannedStage;
    /// PlannedStage::new("merge", "Alert").after(1).after(2);
    /// ```
    #[must_use]
    pub fn after(mut self, stage: u16) -> Self {
        self.after.push(stage);
        self
    }

    /// Is made with this parameter; times and spans in microseconds.
    ///
    /// ```
    /// # use annals_streams::PlannedStage;
    /// PlannedStage::new("top", "points").with("count", 10);
    /// ```
    #[must_use]
    pub fn with(mut self, parameter: impl Into<String>, value: i64) -> Self {
        self.parameters.insert(parameter.into(), value);
        self
    }

    /// What kind of stage it is.
    ///
    /// ```
    /// # use annals_streams::PlannedStage;
    /// assert_eq!(PlannedStage::new("events", "Paid").kind(), "events");
    /// ```
    pub fn kind(&self) -> &str {
        &self.kind
    }
}

impl Plan {
    /// A pipeline without stages.
    ///
    /// ```
    /// # use annals_streams::Plan;
    /// assert_eq!(Plan::new("fraud", 2).canonical(), "fraud 2\n");
    /// ```
    pub fn new(name: impl Into<String>, version: u32) -> Self {
        Self {
            name: name.into(),
            version,
            stages: Vec::new(),
        }
    }

    /// Adds a stage and gives its number, which saved state goes by.
    ///
    /// # Errors
    ///
    /// When it comes after a stage that is not there yet, or there are too many.
    ///
    /// ```
    /// # use annals_streams::{Plan, PlannedStage};
    /// let mut plan = Plan::new("fraud", 1);
    /// assert!(plan.add(PlannedStage::new("merge", "Alert").after(5)).is_err());
    /// ```
    pub fn add(&mut self, stage: PlannedStage) -> Result<u16, ConfigError> {
        let Ok(number) = u16::try_from(self.stages.len()) else {
            let name = &self.name;
            return Err(ConfigError::new(format!(
                "pipeline `{name}` has too many stages"
            )));
        };
        if let Some(missing) = stage.after.iter().find(|after| **after >= number) {
            let kind = &stage.kind;
            let text = format!("stage `{kind}` comes after stage {missing}, which is not there");
            return Err(ConfigError::new(text));
        }
        self.stages.push(stage);
        Ok(number)
    }

    /// The stages, by number.
    ///
    /// ```
    /// # use annals_streams::Plan;
    /// assert!(Plan::new("fraud", 1).stages().is_empty());
    /// ```
    pub fn stages(&self) -> &[PlannedStage] {
        &self.stages
    }

    /// A text that is the same exactly when the plan is.
    ///
    /// ```
    /// # use annals_streams::Plan;
    /// assert_ne!(Plan::new("a", 1).canonical(), Plan::new("a", 2).canonical());
    /// ```
    pub fn canonical(&self) -> String {
        let mut text = format!("{} {}\n", escaped(&self.name), self.version);
        for (number, stage) in self.stages.iter().enumerate() {
            // Writing to a string cannot fail.
            let _ = write!(
                text,
                "{number} {} {}",
                escaped(&stage.kind),
                escaped(&stage.of)
            );
            let _ = write!(text, " after={:?}", stage.after);
            for (parameter, value) in &stage.parameters {
                let _ = write!(text, " {}={value}", escaped(parameter));
            }
            text.push('\n');
        }
        text
    }
}

/// Without spaces and line ends, so that no two plans have one text.
fn escaped(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for letter in name.chars() {
        match letter {
            ' ' | '=' | '\\' | '\n' | '\r' => text.extend(letter.escape_unicode()),
            _ => text.push(letter),
        }
    }
    text
}
