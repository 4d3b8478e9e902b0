//! The official names of agencies and procedures, which no contract has: `names` in the configuration is a file of codes and names, for the console and
//! the citizen's sheet.

use super::reader::{ConfigFault, Document, Table};
use crate::contract::formats::{Format, check};
use std::collections::BTreeMap;
use std::path::Path;

/// Longest name, in characters.
const MAX_NAME: usize = 300;
/// Maximum number of names of a kind: more than the ministries' catalogue of procedures has.
const MAX_NAMES: usize = 20_000;

/// Official names by code, in Vietnamese.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OfficialNames {
    agencies: BTreeMap<String, String>,
    procedures: BTreeMap<String, String>,
}

impl OfficialNames {
    /// Reads a file with the tables `[agencies]` and `[procedures]`.
    ///
    /// # Errors
    /// All faults together: the file cannot be read, a code is malformed, a name is empty or too long, or there are too many.
    pub fn read(file: &Path) -> Result<Self, Vec<ConfigFault>> {
        Document::open(file).map_err(|fault| vec![fault])?.read(|root| {
            let names = |key: &str, format| root.table(key).map(|table| read(&table, format)).unwrap_or_default();
            Some(OfficialNames {
                agencies: names("agencies", Format::AgencyCode),
                procedures: names("procedures", Format::ProcedureCode),
            })
        })
    }

    /// Returns an agency's name.
    pub fn agency(&self, code: &str) -> Option<&str> {
        self.agencies.get(code).map(String::as_str)
    }

    /// Returns a procedure's name; a code with the national suffix (`1.004222.000.00.00.H49`) also has the name of its stem.
    pub fn procedure(&self, code: &str) -> Option<&str> {
        let stem = || code.match_indices('.').nth(1).and_then(|(end, _)| code.get(..end));
        let found = self.procedures.get(code).or_else(|| self.procedures.get(stem()?));
        found.map(String::as_str)
    }
}

fn read(table: &Table<'_>, format: Format) -> BTreeMap<String, String> {
    let codes = table.keys();
    if codes.len() > MAX_NAMES {
        table.fault("", format!("has {} names: at most {MAX_NAMES} are read", codes.len()));
        return BTreeMap::new();
    }
    let mut names = BTreeMap::new();
    for code in codes {
        let Some(name) = table.text(&code) else { continue };
        if check(format, &code).is_err() {
            table.fault(&code, format!("is not {}", crate::contract::formats::expectation(format)));
        } else if name.trim().is_empty() || name.chars().count() > MAX_NAME || name.chars().any(char::is_control) {
            table.fault(&code, format!("must be a name of 1 to {MAX_NAME} characters in one line"));
        } else {
            names.insert(code, name);
        }
    }
    names
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn names(text: &str) -> Result<OfficialNames, Vec<ConfigFault>> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("names.toml");
        std::fs::write(&file, text).unwrap();
        OfficialNames::read(&file)
    }

    #[test]
    fn a_code_has_its_name_and_a_procedure_that_of_its_stem() {
        let text = "[agencies]\n\"H49.12\" = \"Trung tâm Phục vụ hành chính công\"\n\
                    [procedures]\n\"1.004222\" = \"Đăng ký thường trú\"\n";
        let names = names(text).unwrap();
        assert_eq!(names.agency("H49.12"), Some("Trung tâm Phục vụ hành chính công"));
        assert_eq!((names.agency("H49"), names.procedure("1.00422")), (None, None));
        for code in ["1.004222", "1.004222.000.00.00.H49"] {
            assert_eq!(names.procedure(code), Some("Đăng ký thường trú"), "{code}");
        }
    }

    #[test]
    fn each_fault_has_its_line() {
        let text = "[agencies]\nH49 = \"\"\n\"x y\" = \"Sở\"\n[procedures]\n\"1.1\" = \"a\"\n[others]\n";
        let faults: Vec<String> = names(text).unwrap_err().iter().map(ToString::to_string).collect();
        let lines =
            ["names.toml:2: agencies.H49", "names.toml:3: agencies.x y", "names.toml:5: procedures.1.1", "others"];
        assert_eq!(faults.len(), lines.len(), "{faults:?}");
        for (fault, line) in faults.iter().zip(lines) {
            assert!(fault.contains(line), "{fault} without {line}");
        }
        assert!(names("[agencies]\nH49 = 1\n").is_err());
        assert!(OfficialNames::read(Path::new("/nowhere/names.toml")).is_err());
    }
}
