//! The totals of the alteration table: kind of file and way of altering it against the command that noticed.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

/// The outcomes of alterations of one kind, in one way.
#[derive(Debug, Default, Clone)]
pub struct Row {
    pub made: usize,
    pub by_verify: usize,
    pub by_index: usize,
    pub by_registry: usize,
    pub failed: usize,
    pub truth: usize,
    /// Undetected alterations, and wrong outputs.
    pub faults: Vec<String>,
}

/// By the kind of alteration.
pub type Rows = BTreeMap<&'static str, Row>;

impl Row {
    fn add(&mut self, other: Row) {
        self.made += other.made;
        self.by_verify += other.by_verify;
        self.by_index += other.by_index;
        self.by_registry += other.by_registry;
        self.failed += other.failed;
        self.truth += other.truth;
        self.faults.extend(other.faults);
    }

    fn line(&self, kind: &str, way: &str) -> String {
        let Row { made, by_verify, by_index, by_registry, failed, truth, faults } = self;
        let missed = made - by_verify - by_index - by_registry;
        let faults = faults.len();
        format!(
            "| {kind} | {way} | {made} | {by_verify} | {by_index} | {by_registry} | {missed} | {failed} | {truth} | {faults} |"
        )
    }
}

/// The table so far: of each kind its sum, then each way.
pub struct Table {
    kinds: Vec<&'static str>,
    rows: BTreeMap<(usize, &'static str), Row>,
    done: usize,
    of: usize,
    written: Instant,
}

impl Table {
    /// An empty table for these kinds of files, with that many parts.
    pub fn new(kinds: impl Iterator<Item = &'static str>, of: usize) -> Self {
        Table { kinds: kinds.collect(), rows: BTreeMap::new(), done: 0, of, written: Instant::now() }
    }

    /// All undetected alterations and wrong outputs.
    pub fn faults(&self) -> Vec<&String> {
        self.rows.values().flat_map(|row| &row.faults).collect()
    }

    /// Formats it as Markdown.
    pub fn text(&self) -> String {
        let mut text = "| file | way | altered | noticed by `verify` | by `--index` | by `--registry` | by none | of `search`, `show`, \
                        `subject`, `report`: failed | told the truth | faults |\n"
            .to_owned();
        text += "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n";
        let mut total = Row::default();
        for (at, name) in self.kinds.iter().enumerate() {
            let of_kind = || self.rows.range((at, "")..(at + 1, ""));
            let mut sum = Row::default();
            of_kind().for_each(|(_, row)| sum.add(row.clone()));
            text += &format!("{}\n", sum.line(name, "all"));
            of_kind().for_each(|((_, way), row)| text += &format!("{}\n", row.line("", way)));
            total.add(sum);
        }
        text + &format!("{}\n", total.line("all", "all"))
    }

    /// Adds the outcome of a task; writes the totals so far from time to time.
    pub fn take(&mut self, kind: usize, rows: Rows, file: Option<&Path>) {
        self.done += 1;
        for (way, row) in rows {
            row.faults.iter().for_each(|fault| eprintln!("{fault}"));
            self.rows.entry((kind, way)).or_default().add(row);
        }
        let Some(file) = file.filter(|_| self.done == self.of || self.written.elapsed().as_secs() >= 10) else {
            return;
        };
        self.written = Instant::now();
        let faults: String = self.faults().iter().map(|fault| format!("- {fault}\n")).collect();
        let text = format!("{} of {} parts are done.\n\n{}\n{faults}", self.done, self.of, self.text());
        std::fs::write(file, text).unwrap();
    }
}
