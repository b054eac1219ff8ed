//! Numbers: what a run found, as a table and as JSON.

use serde_json::{Map, Value, json};
use std::fmt;

/// The value below which a share of all values lies. The values need not be sorted.
pub fn quantile(values: &mut [u32], share: f64) -> f64 {
    values.sort_unstable();
    let at = (values.len() as f64 * share).ceil() as usize;
    values.get(at.saturating_sub(1)).copied().unwrap_or_default().into()
}

/// The same thing, measured once a round.
#[derive(Clone, Debug, Default)]
pub struct Rounds(Vec<f64>);

impl Rounds {
    /// Adds a round.
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// The last round.
    pub fn last(&self) -> f64 {
        self.0.last().copied().unwrap_or(f64::NAN)
    }

    /// The quotient of two things, round by round: what disturbs the machine for a while disturbs both.
    pub fn over(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(one, other)| one / other).collect())
    }

    /// The difference of two things, round by round.
    pub fn minus(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(one, other)| one - other).collect())
    }

    /// Every round in other units.
    pub fn map(&self, convert: impl Fn(f64) -> f64) -> Self {
        Self(self.0.iter().copied().map(convert).collect())
    }

    /// The middle one of all rounds, the least and the most.
    pub fn spread(&self) -> (f64, f64, f64) {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        let (low, high) = (at(sorted.len().saturating_sub(1) / 2), at(sorted.len() / 2));
        ((low + high) / 2.0, at(0), at(sorted.len().saturating_sub(1)))
    }
}

/// What a run found. Values are printed with their least and their most.
#[derive(Default)]
pub struct Report {
    lines: Vec<(&'static str, String)>,
    json: Map<String, Value>,
}

impl Report {
    /// Adds a fact that is no measurement.
    pub fn fact(&mut self, key: &str, value: impl Into<Value>) {
        self.json.insert(key.to_owned(), value.into());
    }

    /// Adds what was measured: its key in JSON, what it is for people, and its decimals.
    pub fn add(&mut self, key: &str, what: &'static str, decimals: usize, rounds: &Rounds) {
        if rounds.0.is_empty() {
            return; // What this system cannot tell.
        }
        let (middle, least, most) = rounds.spread();
        self.lines.push((what, format!("{middle:>9.decimals$}   ({least:.decimals$} – {most:.decimals$})")));
        for (key, value) in [(key.to_owned(), middle), (format!("{key}_min"), least), (format!("{key}_max"), most)] {
            let scale = 10_f64.powi(i32::try_from(decimals).unwrap_or(0));
            self.json.insert(key, json!((value * scale).round() / scale));
        }
    }

    /// One flat object.
    pub fn to_json(&self) -> String {
        format!("{:#}\n", Value::Object(self.json.clone()))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.lines.iter().map(|(what, _)| what.chars().count()).max().unwrap_or_default();
        for (what, value) in &self.lines {
            writeln!(f, "{what:<width$} {value}")?;
        }
        Ok(())
    }
}
