//! The citizen's sheet: who requested a person's data, on which day, for which procedure, and which kinds of information were given, in
//! plain Vietnamese. The page and the PDF show the same sheet.

use super::query::outcome;
use crate::config::OfficialNames;
use crate::contract::ContractSet;
use crate::contract::labels::vietnamese;
use crate::exchange_log::Entry;
use crate::exchange_log::reader::Found;
use crate::time_zone::HO_CHI_MINH;
use std::collections::BTreeSet;

/// Kinds of information, each with parts of the names of fields that belong to it: 41 paths are one line for a reader.
const KINDS: [(&str, &[&str]); 4] = [
    (
        "thông tin cơ bản (họ tên, ngày sinh, giới tính, số định danh, quốc tịch)",
        &["citizen_id", "name", "gender", "birth_date", "nationality"],
    ),
    ("nơi ở, quê quán, nơi đăng ký khai sinh", &["address", "home_town", "birth_registration", "residence"]),
    ("quan hệ gia đình, hộ gia đình", &["father", "mother", "spouse", "household", "members", "representative"]),
    ("tình trạng hôn nhân", &["marital"]),
];

/// What an official writes into the sheet's heading and foot.
#[derive(Debug, Clone, Default)]
pub struct Letterhead {
    /// The agency above.
    pub superior: String,
    /// The agency that hands the sheet over.
    pub agency: String,
    /// The place that it is dated at.
    pub city: String,
    /// Who signs: title, in words.
    pub signer: String,
    /// Where to complain: address, telephone.
    pub contact: String,
}

/// Requests of one day, agency, purpose and kinds of information.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SheetRow {
    /// `dd/MM/yyyy`.
    pub day: String,
    /// Agency and system.
    pub agency: String,
    /// Where the data lies.
    pub source: String,
    /// Procedure or dossier.
    pub purpose: String,
    /// Kinds of information; empty where nothing was given.
    pub kinds: Vec<String>,
    /// Whether something was given.
    pub given: bool,
    /// How many requests.
    pub count: u64,
}

/// The sheet.
#[derive(Debug, Clone, Default)]
pub struct Sheet {
    /// Heading and foot.
    pub head: Letterhead,
    /// The person's ids.
    pub ids: Vec<String>,
    /// The number of their request.
    pub case: String,
    /// The period, in words.
    pub period: String,
    /// When it was made, Unix time in seconds.
    pub made: i64,
    /// Requests, oldest first.
    pub rows: Vec<SheetRow>,
    /// The log's name, size and root.
    pub log: String,
    /// Up to where it is complete, in words.
    pub complete: String,
    /// The published checkpoint with the log's own signature; empty where there is none. It is the sheet's code: whoever has the sheet
    /// can check it against the log's public key, and later checkpoints against it, without access to anything.
    pub checkpoint: String,
}

/// Returns a checkpoint with the log's own signature alone: cosignatures would make its code too fine to scan.
pub fn own_signature(note: &str) -> String {
    let mut lines = note.lines();
    let text: Vec<&str> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
    match (
        text.first(),
        lines.find(|line| text.first().is_some_and(|origin| line.starts_with(&format!("— {origin} ")))),
    ) {
        (Some(_), Some(signature)) => format!("{}\n\n{signature}\n", text.join("\n")),
        _ => String::new(),
    }
}

fn date(us: i64) -> String {
    let at = jiff::Timestamp::from_microsecond(us);
    at.map_or_else(|_| String::new(), |at| HO_CHI_MINH.to_datetime(at).strftime("%d/%m/%Y").to_string())
}

/// The first letter small: words of a contract in the middle of a sentence.
fn small(words: &str) -> String {
    let mut chars = words.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

/// The kinds of information that fields belong to, in the contract's words where no kind fits.
pub fn kinds(contracts: &ContractSet, operation: &str, fields: &[String]) -> Vec<String> {
    let output = contracts.operation(&format!("/{operation}")).map(|operation| operation.method.output());
    let (mut folded, mut others) = (BTreeSet::new(), BTreeSet::new());
    for field in fields {
        let first = field.split('.').next().unwrap_or_default();
        match KINDS.iter().position(|(_, parts)| parts.iter().any(|part| first.contains(part))) {
            Some(kind) => drop(folded.insert(kind)),
            None => {
                let words = output.as_ref().and_then(|output| vietnamese(output, first));
                others.insert(words.map_or_else(|| "thông tin khác của hồ sơ".to_owned(), |words| small(&words)));
            }
        }
    }
    let named = folded.into_iter().filter_map(|kind| KINDS.get(kind)).map(|(name, _)| (*name).to_owned());
    named.chain(others).collect()
}

fn purpose(names: &OfficialNames, text: &str) -> String {
    if text.is_empty() {
        "không nêu".to_owned()
    } else if let Some(name) = names.procedure(text) {
        format!("thủ tục {name} (mã {text})")
    } else if text.starts_with(|c: char| c.is_ascii_digit()) {
        format!("thủ tục {text}")
    } else {
        format!("hồ sơ {text}")
    }
}

/// The agency by its name, where it has one, with the system that called.
fn agency(names: &OfficialNames, entry: &Entry) -> String {
    match names.agency(&entry.agency) {
        Some(name) => format!("{name} (mã {}, hệ thống {})", entry.agency, entry.client),
        None => format!("{} (hệ thống {})", entry.agency, entry.client),
    }
}

fn row(contracts: &ContractSet, names: &OfficialNames, entry: &Entry) -> SheetRow {
    let source = contracts.sources().into_iter().find(|source| source.id == entry.source);
    let given = outcome(entry) == "OK";
    SheetRow {
        day: date(entry.time_us),
        agency: agency(names, entry),
        source: source.map_or_else(|| entry.source.clone(), |source| source.name_vi.clone()),
        purpose: purpose(names, &entry.purpose),
        kinds: if given { kinds(contracts, &entry.operation, &entry.fields) } else { Vec::new() },
        given,
        count: 1,
    }
}

impl Sheet {
    /// Requests as rows: those of one day, agency, purpose and kinds are one. `found` is oldest first.
    pub fn rows_of(contracts: &ContractSet, names: &OfficialNames, found: &[Found]) -> Vec<SheetRow> {
        let mut rows: Vec<SheetRow> = Vec::new();
        for one in found {
            let new = row(contracts, names, &one.entry);
            let same = |known: &&mut SheetRow| SheetRow { count: 1, ..(**known).clone() } == new;
            let day = rows.iter().rposition(|known| known.day != new.day).map_or(0, |at| at + 1);
            match rows.iter_mut().skip(day).find(same) {
                Some(known) => known.count += 1,
                None => rows.push(new),
            }
        }
        rows
    }

    /// What stands first: how many requests, by whom, of what.
    pub fn summary(&self) -> Vec<String> {
        let sum = |given: bool| self.rows.iter().filter(|row| row.given == given).map(|row| row.count).sum::<u64>();
        let (given, refused) = (sum(true), sum(false));
        let period = &self.period;
        if given + refused == 0 {
            return vec![format!(
                "Khoảng thời gian: {period}. Không có cơ quan nào tra cứu thông tin của Ông/Bà qua hệ thống."
            )];
        }
        let listed = |all: BTreeSet<&str>| all.into_iter().collect::<Vec<_>>().join("; ");
        let agencies = listed(self.rows.iter().map(|row| row.agency.as_str()).collect());
        let kinds = listed(self.rows.iter().flat_map(|row| &row.kinds).map(String::as_str).collect());
        let mut lines = vec![
            format!(
                "Khoảng thời gian: {period}. Có {} lượt tra cứu liên quan đến Ông/Bà: {given} lượt được cung cấp thông tin, {refused} lượt không được cung cấp.",
                given + refused
            ),
            format!("Cơ quan tra cứu: {agencies}."),
        ];
        if !kinds.is_empty() {
            lines.push(format!("Loại thông tin đã cung cấp: {kinds}."));
        }
        lines
    }

    /// How the sheet can be checked.
    pub fn check(&self) -> Vec<String> {
        let mut lines = vec![
            "Mỗi lượt tra cứu nêu trên là một bản ghi trong nhật ký điện tử không thể sửa xóa; bản ghi có biên nhận để kiểm tra độc lập."
                .to_owned(),
        ];
        lines.extend(
            [&self.log, &self.complete].into_iter().filter(|line| !line.is_empty()).map(|line| format!("{line}.")),
        );
        if !self.checkpoint.is_empty() {
            lines.push(
                "Mã QR dưới đây chứa điểm kiểm của nhật ký, có chữ ký số. Ông/Bà nên giữ phiếu này: nhật ký về sau phải chứa trọn phần đã \
                 ký; cơ quan thanh tra hoặc bất kỳ ai có khóa công khai của nhật ký đều kiểm tra được mà không cần vào hệ thống."
                    .to_owned(),
            );
        }
        lines
    }

    /// Where a person turns to.
    pub fn complaint(&self) -> String {
        let agency = if self.head.agency.is_empty() { "cơ quan cấp phiếu này" } else { &self.head.agency };
        let contact = if self.head.contact.is_empty() { String::new() } else { format!(" ({})", self.head.contact) };
        format!(
            "Nếu thấy có lượt tra cứu không đúng, Ông/Bà có quyền phản ánh, khiếu nại, tố cáo đến {agency}{contact}, hoặc đến cơ quan chuyên \
             trách bảo vệ dữ liệu cá nhân thuộc Bộ Công an."
        )
    }

    /// The place and the date, as official documents have them.
    pub fn dateline(&self) -> String {
        let at = jiff::Timestamp::from_second(self.made);
        let date = at.map(|at| HO_CHI_MINH.to_datetime(at).date()).unwrap_or_default();
        let place = if self.head.city.is_empty() { "…………" } else { &self.head.city };
        format!("{place}, ngày {:02} tháng {:02} năm {}", date.day(), date.month(), date.year())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::exchange_log::Kind;

    fn found(fields: &[&str], purpose: &str, reason: &str) -> Found {
        let entry = Entry {
            time_us: 1_795_737_600_000_000,
            agency: "H49.12".into(),
            client: "kho".into(),
            source: "population".into(),
            operation: "ndxp.population.v1.PopulationService/GetCitizen".into(),
            fields: fields.iter().map(|field| (*field).to_owned()).collect(),
            purpose: purpose.into(),
            reason: reason.into(),
            status: if reason.is_empty() { 0 } else { 7 },
            ..Entry::begin(Kind::Exchange, "dc1")
        };
        Found { index: 7, entry: Entry { time_us: 1_795_737_600_000_000, ..entry } }
    }

    #[test]
    fn paths_are_folded_to_kinds_and_requests_of_one_kind_to_a_row() {
        let contracts = ContractSet::embedded().unwrap();
        let basic = &["name.family", "name.given", "birth_date", "permanent_address.detail", "religion_code"][..];
        let all = [found(basic, "1.004222", ""), found(basic, "1.004222", ""), found(&[], "", "SCOPE_NOT_GRANTED")];
        let rows = Sheet::rows_of(&contracts, &OfficialNames::default(), &all);
        assert_eq!(rows.len(), 2, "{rows:?}");
        assert_eq!(
            (rows[0].day.as_str(), rows[0].count, rows[0].purpose.as_str()),
            ("27/11/2026", 2, "thủ tục 1.004222")
        );
        assert_eq!(rows[0].kinds, [KINDS[0].0, KINDS[1].0, "tôn giáo"]);
        assert!(!rows[1].given && rows[1].kinds.is_empty() && rows[0].source.contains("dân cư"));
        let sheet = Sheet { rows, period: "toàn bộ nhật ký".into(), ..Sheet::default() };
        assert!(sheet.summary()[0].contains("Có 3 lượt") && sheet.summary()[0].contains("2 lượt được cung cấp"));
        assert!(Sheet::default().summary()[0].contains("Không có cơ quan nào"));
    }

    #[test]
    fn a_sheet_s_code_is_a_checkpoint_that_anybody_can_check() {
        use crate::exchange_log::checkpoint::LogSigner;
        let signer = LogSigner::from_pkcs8("log.example/a", &LogSigner::generate().unwrap()).unwrap();
        let note = signer.sign(1_234, &[7; 32]);
        let cosigned = format!("{note}— witness.example/b AAAAAAAA\n");
        let code = own_signature(&cosigned);
        assert_eq!(signer.verifier().check(&code).unwrap().size, 1_234);
        assert!(!code.contains("witness") && code.len() < 400, "{code}");
        assert_eq!((own_signature(""), own_signature("log.example/a\n1\nx\n\n")), (String::new(), String::new()));
    }

    #[test]
    fn an_operation_that_the_contracts_have_no_more_is_still_in_the_sheet() {
        let contracts = ContractSet::embedded().unwrap();
        assert_eq!(kinds(&contracts, "gone.v1.Gone/Get", &["secret".into()]), ["thông tin khác của hồ sơ"]);
    }
}
