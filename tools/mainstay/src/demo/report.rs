//! The tables at the end.

use std::fmt;
use std::time::Duration;

use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, Table};

use super::cluster::Act;
use super::load::Findings;

/// What the demo found.
pub struct Report {
    /// The rows, counted at the end.
    pub findings: Findings,
    /// Rows missing when counted right after the kill.
    pub lost_after_kill: u64,
    /// From the kill to the first answer of the restarted node.
    pub recovery: Duration,
    /// How long clients were writing.
    pub writing: Duration,
}

impl Report {
    /// Nothing acknowledged was lost and nothing is there that nobody wrote.
    pub fn is_good(&self) -> bool {
        self.findings.acknowledged > 0 && self.lost() == 0 && self.findings.wrong == 0
    }

    fn lost(&self) -> u64 {
        self.findings.lost.max(self.lost_after_kill)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let findings = &self.findings;
        let per_second = findings.acknowledged as f64 / self.writing.as_secs_f64();
        let mut rows = vec![
            ("rows acknowledged", findings.acknowledged.to_string()),
            ("rows found", findings.found.to_string()),
            ("rows lost", self.lost().to_string()),
            ("unanswered at the kill", format!("{}, of which found {}", findings.unknown, findings.unknown_found)),
            ("recovery time", format!("{:.0} ms", self.recovery.as_secs_f64() * 1000.0)),
            ("commits/s", format!("{per_second:.0}")),
        ];
        if findings.wrong > 0 {
            rows.push(("rows wrong", findings.wrong.to_string()));
        }
        write!(f, "{}", table(rows))
    }
}

impl Act {
    /// Nothing acknowledged was lost and nothing is there that nobody wrote.
    pub fn is_good(&self) -> bool {
        self.findings.acknowledged > 0 && self.findings.lost == 0 && self.findings.wrong == 0
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let findings = &self.findings;
        let per_second = findings.acknowledged as f64 / self.writing.as_secs_f64();
        let reigns = (0..).zip(&self.reigns).map(|(place, (from, node))| match place {
            0 => format!("node {node}"),
            _ => format!("node {node} from {:.1} s on", from.as_secs_f64()),
        });
        let mut rows = vec![
            ("writes acknowledged", findings.acknowledged.to_string()),
            ("writes lost", findings.lost.to_string()),
            ("longest gap", format!("{:.0} ms", self.longest_gap.as_secs_f64() * 1000.0)),
            ("led the metadata", reigns.collect::<Vec<_>>().join(", ")),
            ("writes/s", format!("{per_second:.0}")),
        ];
        if findings.unknown > 0 {
            rows.push(("unanswered", findings.unknown.to_string()));
        }
        if findings.wrong > 0 {
            rows.push(("keys wrong", findings.wrong.to_string()));
        }
        write!(f, "{}", table(rows))
    }
}

fn table(rows: Vec<(&str, String)>) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY);
    for (name, value) in rows {
        table.add_row([name.to_owned(), value]);
    }
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_lost_row_is_a_failure_even_if_it_came_back() {
        let findings = Findings { acknowledged: 5, found: 5, ..Findings::default() };
        let second = Duration::from_secs(1);
        let mut report = Report { findings, lost_after_kill: 0, recovery: second, writing: second };
        assert!(report.is_good());
        report.lost_after_kill = 1;
        assert!(!report.is_good());
        assert!(report.to_string().contains("rows lost"));
        report = Report { findings: Findings { wrong: 1, ..findings }, lost_after_kill: 0, ..report };
        assert!(!report.is_good());
    }
}
