//! What the benchmark families share: rounds, rows, the table, the file of results, and the device's own speed.
//!
//! The machine is shared and noisy, so a family measures ours, the peer and the ceiling in alternating rounds of one
//! run, and a row states medians of the rounds, their ratio and their spread.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::str::FromStr;

use anyhow::Context as _;
use serde_json::{Value, json};

pub mod raw;

/// What a ratio or a figure must reach.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    /// At most this.
    AtMost(f64),
    /// At least this.
    AtLeast(f64),
    /// None: the row is for reading.
    None,
}

/// What the goal is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// The figure itself.
    Ours,
    /// Ours divided by the ceiling, or by the peer where there is one.
    Ratio,
}

/// One measure.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its name.
    pub measure: String,
    /// Of all figures.
    pub unit: &'static str,
    /// One per round.
    pub ours: Vec<f64>,
    /// One per round, and the peer's name.
    pub peer: Option<(&'static str, Vec<f64>)>,
    /// What the device or the machine can do, one per round.
    pub ceiling: Option<Vec<f64>>,
    /// What it should be.
    pub goal: (Goal, On),
}

/// The one in the middle; the mean of the two in the middle.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.get(sorted.len().wrapping_sub(1) / 2), sorted.get(sorted.len() / 2)) {
        (Some(low), Some(high)) => (low + high) / 2.0,
        _ => f64::NAN,
    }
}

/// A number in the environment, if one stands there.
pub fn number<T: FromStr>(name: &str, default: T) -> T {
    env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// The value that `share` of all are not above.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = (sorted.len() as f64 * share) as usize;
    sorted.get(index.min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

impl Row {
    /// A row against a peer, still without figures.
    pub fn against(measure: &str, unit: &'static str, peer: &'static str, goal: Goal) -> Row {
        let peer = Some((peer, Vec::new()));
        Row { measure: measure.to_owned(), unit, ours: Vec::new(), peer, ceiling: None, goal: (goal, On::Ratio) }
    }

    /// A row of ours alone, still without figures.
    pub fn alone(measure: &str, unit: &'static str, goal: Goal) -> Row {
        Row { measure: measure.to_owned(), unit, ours: Vec::new(), peer: None, ceiling: None, goal: (goal, On::Ours) }
    }

    /// A round's figure, of ours or of the peer.
    pub fn push(&mut self, is_ours: bool, figure: f64) {
        match &mut self.peer {
            Some((_, figures)) if !is_ours => figures.push(figure),
            _ => self.ours.push(figure),
        }
    }

    /// Ours against the peer, else against the ceiling: the median of the rounds' ratios, as each round's figures were
    /// taken under the same load.
    pub fn ratio(&self) -> Option<f64> {
        let other = self.peer.as_ref().map(|(_, values)| values).or(self.ceiling.as_ref())?;
        let ratios: Vec<f64> = self.ours.iter().zip(other).map(|(ours, other)| ours / other).collect();
        Some(median(&ratios))
    }

    /// Half the distance between the best and the worst round, as a share of the median.
    pub fn spread(&self) -> f64 {
        let (low, high) = (quantile(&self.ours, 0.0), quantile(&self.ours, 1.0));
        (high - low) / 2.0 / median(&self.ours)
    }

    /// Whether the goal is met; nothing without one. What was not measured is not met.
    pub fn met(&self) -> Option<bool> {
        let figure = if self.goal.1 == On::Ours { Some(median(&self.ours)) } else { self.ratio() };
        let figure = figure.unwrap_or(f64::NAN);
        match self.goal.0 {
            Goal::AtMost(limit) => Some(figure <= limit),
            Goal::AtLeast(limit) => Some(figure >= limit),
            Goal::None => None,
        }
    }

    fn goal_text(&self) -> Option<String> {
        match self.goal.0 {
            Goal::AtMost(limit) => Some(format!("<= {limit}")),
            Goal::AtLeast(limit) => Some(format!(">= {limit}")),
            Goal::None => None,
        }
    }

    fn to_json(&self) -> Value {
        let rounded = |value: f64| if value.is_finite() { json!((value * 1e4).round() / 1e4) } else { Value::Null };
        json!({
            "measure": self.measure,
            "unit": self.unit,
            "ours": rounded(median(&self.ours)),
            "peer": self.peer.as_ref().map_or(Value::Null, |(_, values)| rounded(median(values))),
            "peer_name": self.peer.as_ref().map(|(name, _)| *name),
            "ceiling": self.ceiling.as_ref().map_or(Value::Null, |values| rounded(median(values))),
            "ratio": self.ratio().map_or(Value::Null, rounded),
            "goal": self.goal_text(),
            "goal_on": self.goal_text().map(|_| if self.goal.1 == On::Ours { "ours" } else { "ratio" }),
            "met": self.met(),
            "rounds": self.ours.len(),
            "spread": rounded(self.spread()),
        })
    }

    fn print(&self) {
        let number = |value: Option<f64>| match value.filter(|value| value.is_finite()) {
            Some(value) if value.abs() >= 1000.0 => format!("{value:.0}"),
            Some(value) => format!("{value:.2}"),
            None => "-".into(),
        };
        let goal = self
            .goal_text()
            .map_or("-".into(), |goal| format!("{}{goal}", if self.goal.1 == On::Ours { "" } else { "ratio " }));
        println!(
            "{:<34} {:>9} {:>10} {:>10} {:>10} {:>7} {:>14} {:>5} {:>7}",
            self.measure,
            self.unit,
            number(Some(median(&self.ours))),
            number(self.peer.as_ref().map(|(_, values)| median(values))),
            number(self.ceiling.as_ref().map(|values| median(values))),
            number(self.ratio()),
            goal,
            self.met().map_or("-", |met| if met { "yes" } else { "NO" }),
            number(Some(self.spread())),
        );
    }
}

/// Prints the table's head.
pub fn print_head() {
    println!(
        "{:<34} {:>9} {:>10} {:>10} {:>10} {:>7} {:>14} {:>5} {:>7}",
        "measure", "unit", "ours", "peer", "ceiling", "ratio", "goal", "met", "spread"
    );
}

/// Prints a row as soon as it is measured, and keeps it.
pub fn add(rows: &mut Vec<Row>, row: Row) {
    row.print();
    rows.push(row);
}

/// Writes `bench-results/<family>.json`.
///
/// # Errors
/// The file cannot be written.
pub fn write(family: &str, directory: &Path, sync_us: f64, rows: &[Row]) -> anyhow::Result<()> {
    let rows: Vec<Value> = rows.iter().map(Row::to_json).collect();
    let text = serde_json::to_string_pretty(&json!({ "environment": environment(directory, sync_us), "rows": rows }))?;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench-results");
    fs::create_dir_all(&folder)?;
    let path = folder.join(format!("{family}.json"));
    fs::write(&path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    Ok(())
}

fn environment(directory: &Path, sync_us: f64) -> Value {
    let output = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).lines().last().unwrap_or_default().trim().to_owned())
    };
    let cpu = fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    });
    json!({
        "kernel": output("uname", &["-sr"]),
        "file_system": output("stat", &["-f", "-c", "%T", &directory.to_string_lossy()]),
        "cpu": cpu,
        "cores": std::thread::available_parallelism().map(usize::from).ok(),
        "commit": output("git", &["rev-parse", "--short", "HEAD"]),
        "sync_us": sync_us.round(),
    })
}
