//! Success, failure and absence in a response, as the contract distinguishes them. Anything that it does not name is
//! none of the three.

use super::{WirePath, lookup, scalar_text, values};
use crate::contract::options::{self, Meaning};
use crate::contract::text;
use serde_json::Value;

/// A contract's outcome rules, compiled once.
#[derive(Debug, Default)]
pub struct OutcomeRules {
    /// Paths of the code: the first with a code counts.
    pub code: Vec<WirePath>,
    success: Vec<String>,
    /// Rules with a message pattern first.
    failure: Vec<OutcomeRule>,
    absent_is_success: bool,
    /// Whether an empty value at the response's root means that there is no such record.
    pub empty_is_not_found: bool,
    no_record: Vec<AbsenceSign>,
    otherwise: Meaning,
}

#[derive(Debug)]
struct OutcomeRule {
    codes: Vec<String>,
    meaning: Meaning,
    message: Option<MessagePattern>,
}

#[derive(Debug)]
struct MessagePattern {
    at: WirePath,
    /// In form C and lower case.
    any: Vec<String>,
}

#[derive(Debug)]
struct AbsenceSign {
    way: Vec<String>,
    missing: bool,
    texts: Vec<String>,
}

/// The meaning of a response's code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutcomeVerdict {
    /// A success; whether by a code.
    Success {
        /// A code of the contract was read, or none is needed.
        coded: bool,
    },
    /// A failure of this meaning, with the source's code.
    Failure(Meaning, String),
    /// No code where one is required.
    NoCode,
}

impl OutcomeRules {
    /// Compiles the rules of a contract.
    ///
    /// # Errors
    /// The text names the incomplete rule.
    pub fn compile(said: Option<&options::Outcome>) -> Result<Self, String> {
        let Some(said) = said else { return Ok(OutcomeRules::default()) };
        let codes = |codes: &[String]| codes.iter().map(|code| text::code(code).into_owned()).collect();
        let mut failure = Vec::new();
        for rule in &said.failure {
            let message = match (rule.message_path.as_str(), rule.message_contains.as_slice()) {
                ("", []) => None,
                ("", _) | (_, []) => return Err("a failure needs both of message_contains and message_path".into()),
                (at, texts) => Some(MessagePattern {
                    at: WirePath::parse(at),
                    any: texts.iter().map(|text| folded(text)).collect(),
                }),
            };
            if rule.codes.is_empty() && message.is_none() {
                return Err("a failure needs codes or message_contains".into());
            }
            failure.push(OutcomeRule { codes: codes(&rule.codes), meaning: rule.meaning(), message });
        }
        failure.sort_by_key(|rule| rule.message.is_none());
        let sign = |sign: &options::NoRecord| match WirePath::parse(&sign.path).parts {
            way if way.is_empty() => Err("no_record needs a path".to_owned()),
            _ if sign.missing && !sign.text.is_empty() => Err("no_record has either missing or text".to_owned()),
            way => Ok(AbsenceSign { way, missing: sign.missing, texts: codes(&sign.text) }),
        };
        Ok(OutcomeRules {
            code: said.code.iter().map(|path| WirePath::parse(path)).collect(),
            success: codes(&said.success),
            failure,
            absent_is_success: said.absent_is_success,
            empty_is_not_found: said.empty_is_not_found,
            no_record: said.no_record.iter().map(sign).collect::<Result<_, _>>()?,
            otherwise: match said.otherwise() {
                Meaning::Unspecified => Meaning::Failed,
                meaning => meaning,
            },
        })
    }

    /// Converts a code that has become a decimal number on its way (`0.0`, as Gson writes every number), if only the
    /// form without decimals is a code of the contract.
    fn undecimal(&self, code: String) -> String {
        let known =
            |code: &String| self.success.contains(code) || self.failure.iter().any(|rule| rule.codes.contains(code));
        if !code.contains('.') || known(&code) {
            return code;
        }
        text::integer(&code).map(|number| number.to_string()).filter(known).unwrap_or(code)
    }

    /// Returns whether any sign distinguishes absence from a malformed response.
    pub fn knows_absence(&self) -> bool {
        let code = || self.failure.iter().any(|rule| rule.meaning == Meaning::NotFound);
        self.empty_is_not_found || !self.no_record.is_empty() || self.otherwise == Meaning::NotFound || code()
    }

    /// Returns the paths of the codes and of the messages.
    pub fn code_paths(&self) -> impl Iterator<Item = &WirePath> {
        self.code.iter().chain(self.failure.iter().filter_map(|rule| rule.message.as_ref().map(|message| &message.at)))
    }

    /// Returns the paths of the signs of absence.
    pub fn sign_paths(&self) -> impl Iterator<Item = &[String]> {
        self.no_record.iter().map(|sign| sign.way.as_slice())
    }

    /// Returns whether success is stated by a code.
    pub fn has_code(&self) -> bool {
        !self.code.is_empty()
    }

    /// Returns whether the document has a sign of the contract that there is no such record. `element`: the name of the
    /// body element that contains the document.
    pub fn signals_no_record(&self, document: &Value, element: Option<&str>) -> bool {
        self.no_record.iter().any(|sign| {
            let inside = match (element, sign.way.split_first()) {
                (Some(element), Some((first, rest))) if element == first => sign.is(document, rest),
                _ => false,
            };
            inside || sign.is(document, &sign.way)
        })
    }
}

impl AbsenceSign {
    fn is(&self, document: &Value, way: &[String]) -> bool {
        let Some((last, above)) = way.split_last() else {
            return !self.missing && self.texts.is_empty() && values::is_absent(document);
        };
        let mut here = document;
        for part in above {
            match values::only(here).get(part) {
                Some(next) => here = next,
                None => return false,
            }
        }
        let Value::Object(object) = values::only(here) else { return false };
        match object.get(last) {
            None => self.missing && object.values().any(|value| !values::is_absent(value)),
            Some(_) if self.missing => false,
            Some(value) if self.texts.is_empty() => values::is_absent(value),
            Some(value) => {
                scalar_text(value).is_some_and(|found| self.texts.iter().any(|one| *one == *text::code(&found)))
            }
        }
    }
}

impl MessagePattern {
    fn is_in(&self, document: &Value, place: &Value) -> bool {
        let text = lookup(place, document, &self.at).and_then(scalar_text);
        text.map(|text| folded(&text)).is_some_and(|text| self.any.iter().any(|word| text.contains(word.as_str())))
    }
}

fn folded(text: &str) -> String {
    text::nfc(text).to_lowercase()
}

/// Returns the code in a document: trimmed, in form C. An empty one counts as none.
fn code(rules: &OutcomeRules, document: &Value, place: &Value) -> Option<String> {
    rules.code.iter().find_map(|path| {
        let code = lookup(place, document, path).and_then(scalar_text)?;
        let code = text::code(&code);
        (!code.is_empty()).then(|| rules.undecimal(code.into_owned()))
    })
}

/// Returns whether a location of the code is present and empty.
fn has_empty_code(rules: &OutcomeRules, document: &Value, place: &Value) -> bool {
    rules.code.iter().any(|path| {
        let Some((last, above)) = path.parts.split_last() else { return false };
        let above = WirePath { absolute: path.absolute, parts: above.to_vec() };
        lookup(place, document, &above)
            .is_some_and(|above| values::only(above).get(last).is_some_and(values::is_absent))
    })
}

/// Reads the code and judges it.
pub fn evaluate(rules: &OutcomeRules, document: &Value, place: &Value) -> OutcomeVerdict {
    let code = code(rules, document, place);
    for rule in &rules.failure {
        if let Some(message) = &rule.message
            && (rule.codes.is_empty() || code.as_ref().is_some_and(|code| rule.codes.contains(code)))
            && message.is_in(document, place)
        {
            return OutcomeVerdict::Failure(rule.meaning, shorten(code.unwrap_or_default()));
        }
    }
    match code {
        Some(code) if rules.success.contains(&code) => OutcomeVerdict::Success { coded: true },
        Some(code) => OutcomeVerdict::Failure(meaning_of(rules, &code).unwrap_or(rules.otherwise), shorten(code)),
        // An empty code counts as none, unless the contract names it.
        None if rules.success.iter().any(String::is_empty) && has_empty_code(rules, document, place) => {
            OutcomeVerdict::Success { coded: true }
        }
        None if rules.absent_is_success || rules.code.is_empty() => OutcomeVerdict::Success { coded: false },
        None => OutcomeVerdict::NoCode,
    }
}

/// Returns the failure that a document names by a code in a rule of the contract; message patterns count as well.
pub fn named_failure(rules: &OutcomeRules, document: &Value) -> Option<(Meaning, String)> {
    let code = code(rules, document, document)?;
    match evaluate(rules, document, document) {
        OutcomeVerdict::Failure(meaning, shown) if meaning_of(rules, &code).is_some() || meaning != rules.otherwise => {
            Some((meaning, shown))
        }
        _ => None,
    }
}

/// A code in lower case and without underscores: the same for `server.serverproxy.access_denied` (X-Road 7.8) and
/// `Server.ServerProxy.AccessDenied` (7.7 and before).
pub fn spelling_free(code: &str) -> String {
    code.chars().filter(|c| *c != '_').map(|c| c.to_ascii_lowercase()).collect()
}

/// Returns the meaning of a code, if the contract has one. `Client` also matches `Client.Anything`, unless a longer
/// family is named.
pub fn meaning_of(rules: &OutcomeRules, code: &str) -> Option<Meaning> {
    let code = text::code(code);
    // Codes with families are compared in both of X-Road's spellings.
    let is = |known: &str, wanted: &str, exact: bool| match exact {
        true => known == wanted,
        false => code.contains('.') && spelling_free(known) == spelling_free(wanted),
    };
    let by = |wanted: &str, exact| {
        rules
            .failure
            .iter()
            .find(|rule| rule.message.is_none() && rule.codes.iter().any(|known| is(known, wanted, exact)))
    };
    let named = |wanted: &str| by(wanted, true).or_else(|| by(wanted, false));
    // The longest family that is named.
    let mut family: &str = &code;
    loop {
        if let Some(rule) = named(family) {
            return Some(rule.meaning);
        }
        family = family.rsplit_once('.')?.0;
    }
}

/// Longest code, in bytes: X-Road's have up to five segments.
const MAX_CODE: usize = 128;

/// Codes are short by nature: a longer text is not a code, and might hold anything.
pub fn shorten(code: String) -> String {
    let plain = code.len() <= MAX_CODE && code.chars().all(|c| c.is_ascii_alphanumeric() || "._-:".contains(c));
    if plain { code } else { "(not a code)".to_owned() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn failure(codes: &[&str], meaning: Meaning, (path, contains): (&str, &[&str])) -> options::Failure {
        options::Failure {
            codes: codes.iter().map(|&code| code.into()).collect(),
            meaning: meaning.into(),
            message_contains: contains.iter().map(|&text| text.into()).collect(),
            message_path: path.into(),
        }
    }

    fn outcome() -> options::Outcome {
        options::Outcome {
            code: vec!["/status/code".into(), "code".into()],
            success: vec!["0".into(), "OK".into()],
            failure: vec![
                failure(&["3"], Meaning::Rejected, ("", &[])),
                failure(&["3"], Meaning::Exists, ("/message", &["ĐÃ TỒN TẠI"])),
                failure(&["404", "Client.NotFound"], Meaning::NotFound, ("", &[])),
                failure(&["Client"], Meaning::Credentials, ("", &[])),
            ],
            no_record: vec![
                options::NoRecord { path: "data".into(), missing: true, text: vec![] },
                options::NoRecord { path: "data/state".into(), missing: false, text: vec!["NONE".into()] },
            ],
            ..options::Outcome::default()
        }
    }

    #[test]
    fn a_document_is_judged_by_its_code_and_what_the_contract_does_not_name_failed() {
        let rules = OutcomeRules::compile(Some(&outcome())).unwrap();
        let coded = OutcomeVerdict::Success { coded: true };
        let failed = |meaning, code: &str| OutcomeVerdict::Failure(meaning, code.to_owned());
        for (document, wanted) in [
            (json!({ "code": "0" }), coded.clone()),
            (json!({ "code": " OK " }), coded.clone()),
            (json!({ "code": 0.0 }), coded.clone()),
            // The first location with a code counts.
            (json!({ "code": "0", "status": { "code": "3" } }), failed(Meaning::Rejected, "3")),
            (json!({ "code": "0", "status": { "code": "" } }), coded),
            (json!({ "code": 3, "message": "Hồ sơ đã tồn tại" }), failed(Meaning::Exists, "3")),
            (json!({ "code": 3, "message": "khác" }), failed(Meaning::Rejected, "3")),
            (json!({ "code": "404" }), failed(Meaning::NotFound, "404")),
            // The longest family that is named.
            (json!({ "code": "Client.NotFound.Here" }), failed(Meaning::NotFound, "Client.NotFound.Here")),
            (json!({ "code": "client.not_found" }), failed(Meaning::NotFound, "client.not_found")),
            (json!({ "code": "Client.Other" }), failed(Meaning::Credentials, "Client.Other")),
            (json!({ "code": "Clients" }), failed(Meaning::Failed, "Clients")),
            // A text that does not have the form of a code is not shown.
            (json!({ "code": "Nguyễn Văn A" }), failed(Meaning::Failed, "(not a code)")),
            (json!({ "data": {} }), OutcomeVerdict::NoCode),
            (json!({ "code": null }), OutcomeVerdict::NoCode),
            (json!([]), OutcomeVerdict::NoCode),
        ] {
            assert_eq!(evaluate(&rules, &document, &document), wanted, "{document}");
        }
    }

    #[test]
    fn absence_of_a_code_and_signs_of_no_record_are_what_the_contract_says() {
        let uncoded = OutcomeVerdict::Success { coded: false };
        let absent = options::Outcome { absent_is_success: true, ..outcome() };
        let rules = OutcomeRules::compile(Some(&absent)).unwrap();
        assert_eq!(evaluate(&rules, &json!({}), &json!({})), uncoded);
        let none = OutcomeRules::compile(None).unwrap();
        assert_eq!(evaluate(&none, &json!({ "code": "3" }), &json!({})), uncoded);
        assert!(!none.knows_absence() && rules.knows_absence());
        for (document, wanted) in [
            (json!({ "code": "0" }), true),
            (json!({ "code": "0", "data": {} }), false),
            (json!({ "data": { "state": " NONE " } }), true),
            (json!({ "data": { "state": "SOME" } }), false),
            // An empty document proves nothing.
            (json!({}), false),
            (json!([]), false),
        ] {
            assert_eq!(rules.signals_no_record(&document, None), wanted, "{document}");
        }
    }

    #[test]
    fn rules_that_say_half_of_something_are_refused() {
        let with = |change: &dyn Fn(&mut options::Outcome)| {
            let mut said = outcome();
            change(&mut said);
            OutcomeRules::compile(Some(&said)).err().unwrap_or_default()
        };
        for (change, wanted) in [
            ((&|_: &mut _| {}) as &dyn Fn(&mut options::Outcome), ""),
            (&|said| said.failure[1].message_path.clear(), "both of message_contains and message_path"),
            (&|said| said.failure[1].message_contains.clear(), "both of message_contains and message_path"),
            (&|said| said.failure[0].codes.clear(), "needs codes or message_contains"),
            (&|said| said.no_record[0].path.clear(), "no_record needs a path"),
            (&|said| said.no_record[1].missing = true, "either missing or text"),
        ] {
            let found = with(change);
            assert!(found.contains(wanted) && found.is_empty() == wanted.is_empty(), "{wanted}: {found}");
        }
    }
}
