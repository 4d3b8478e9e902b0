//! Formats that are checked before anything is dispatched. Each function names the rule's source.

use super::{options, xsd};

/// A format, made from the contract's option.
pub type Format = options::Format;

/// The 34 provinces in force since 2025-07-01 (Decision 19/2025/QĐ-TTg).
pub const PROVINCES: [(&str, &str); 34] = [
    ("01", "Hà Nội"),
    ("04", "Cao Bằng"),
    ("08", "Tuyên Quang"),
    ("11", "Điện Biên"),
    ("12", "Lai Châu"),
    ("14", "Sơn La"),
    ("15", "Lào Cai"),
    ("19", "Thái Nguyên"),
    ("20", "Lạng Sơn"),
    ("22", "Quảng Ninh"),
    ("24", "Bắc Ninh"),
    ("25", "Phú Thọ"),
    ("31", "Hải Phòng"),
    ("33", "Hưng Yên"),
    ("37", "Ninh Bình"),
    ("38", "Thanh Hóa"),
    ("40", "Nghệ An"),
    ("42", "Hà Tĩnh"),
    ("44", "Quảng Trị"),
    ("46", "Huế"),
    ("48", "Đà Nẵng"),
    ("51", "Quảng Ngãi"),
    ("52", "Gia Lai"),
    ("56", "Khánh Hòa"),
    ("66", "Đắk Lắk"),
    ("68", "Lâm Đồng"),
    ("75", "Đồng Nai"),
    ("79", "Hồ Chí Minh"),
    ("80", "Tây Ninh"),
    ("82", "Đồng Tháp"),
    ("86", "Vĩnh Long"),
    ("91", "An Giang"),
    ("92", "Cần Thơ"),
    ("96", "Cà Mau"),
];

/// The 63 provinces of the three-tier order, until 2025-06-30 (Decision 124/2004/QĐ-TTg as amended). The province of
/// registration in a citizen id is one of these, with a leading zero.
pub const OLD_PROVINCES: [&str; 63] = [
    "01", "02", "04", "06", "08", "10", "11", "12", "14", "15", "17", "19", "20", "22", "24", "25", "26", "27", "30",
    "31", "33", "34", "35", "36", "37", "38", "40", "42", "44", "45", "46", "48", "49", "51", "52", "54", "56", "58",
    "60", "62", "64", "66", "67", "68", "70", "72", "74", "75", "77", "79", "80", "82", "83", "84", "86", "87", "89",
    "91", "92", "93", "94", "95", "96",
];

/// Weights of a tax code's check digit (Circular 95/2016/TT-BTC, annex).
const TAX_WEIGHTS: [u32; 9] = [31, 29, 23, 19, 17, 13, 7, 5, 3];

/// Returns the tenth digit of a tax code with these first nine; `None` if there is no valid one.
pub fn tax_check_digit(first_nine: &str) -> Option<u32> {
    if first_nine.len() != 9 {
        return None;
    }
    let mut sum = 0;
    for (digit, weight) in first_nine.chars().zip(TAX_WEIGHTS) {
        sum += digit.to_digit(10)? * weight;
    }
    // The check digit is 10 − (sum mod 11); a remainder of 0 would make it 10, which no code has.
    Some(10 - sum % 11).filter(|digit| *digit < 10)
}

/// Returns whether a dotted name (an agency code, a procedure code, a field's path) is `outer` or below it.
pub fn is_within(outer: &str, name: &str) -> bool {
    name.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Checks a text against a format.
///
/// # Errors
/// The expected form; never the given value.
pub fn check(format: Format, text: &str) -> Result<(), &'static str> {
    let holds = match format {
        Format::Unspecified => true,
        Format::CitizenId => citizen_id(text),
        Format::OldCitizenId => digits(text, 9),
        Format::TaxCode => tax_code(text),
        Format::SocialInsuranceNumber => digits(text, 10) || citizen_id(text),
        Format::AgencyCode => agency_code(text),
        Format::DossierNumber => dossier_number(text),
        Format::ProvinceCode => PROVINCES.iter().any(|(code, _)| *code == text),
        Format::CommuneCode => digits(text, 5),
        Format::OldProvinceCode => OLD_PROVINCES.contains(&text),
        Format::OldDistrictCode => digits(text, 3),
        Format::ProcedureCode => procedure_code(text),
        Format::BudgetUnitCode => digits(text, 7),
        Format::PersonName => person_name(text),
        Format::PhoneNumber => phone_number(text),
        Format::Email => email(text),
        Format::Code => code(text),
        Format::ParcelId => parcel_id(text),
        Format::TimeOfDay => time_of_day(text),
        Format::XsdTime => xsd::time(text).is_some(),
        Format::XsdDuration => xsd::duration(text).is_some(),
    };
    if holds { Ok(()) } else { Err(expectation(format)) }
}

/// Returns a text in its format's normal form, for formats that have one and apply it to responses too; `Some(None)` if
/// it does not fit.
pub fn normal(format: Format, text: &str) -> Option<Option<String>> {
    match format {
        Format::XsdTime => Some(xsd::time(text)),
        Format::XsdDuration => Some(xsd::duration(text)),
        _ => None,
    }
}

/// Returns a description of a format.
pub fn expectation(format: Format) -> &'static str {
    match format {
        Format::Unspecified => "any text",
        Format::CitizenId => {
            "12 digits: province of registration, century and sex, year of birth, 6 digits (số định danh cá nhân)"
        }
        Format::OldCitizenId => "9 digits (số chứng minh nhân dân)",
        Format::TaxCode => {
            "10 digits of which the last is a check digit, 13 with a branch, or 12 of a citizen id (mã số thuế)"
        }
        Format::SocialInsuranceNumber => "10 digits, or 12 of a citizen id (mã số bảo hiểm xã hội)",
        Format::AgencyCode => "an agency code such as H49, H49.12 or 000.00.12.H49 (mã định danh)",
        Format::DossierNumber => "agency-yymmdd-serial, such as H49.12-251103-0001 (mã số hồ sơ)",
        Format::ProvinceCode => "2 digits of a province in force since 2025-07-01 (mã tỉnh)",
        Format::CommuneCode => "5 digits (mã xã)",
        Format::OldProvinceCode => "2 digits of a province as before 2025-07-01 (mã tỉnh)",
        Format::OldDistrictCode => "3 digits (mã huyện)",
        Format::ProcedureCode => "a procedure code such as 1.004873 (mã thủ tục hành chính)",
        Format::BudgetUnitCode => "7 digits (mã số ĐVQHNS)",
        Format::PersonName => "a person's name: letters, spaces, hyphens, apostrophes, dots",
        Format::PhoneNumber => "a telephone number: 9 to 15 digits, with or without a leading +",
        Format::Email => "an e-mail address",
        Format::Code => "letters, digits and . - _ / only",
        Format::ParcelId => "12 characters of 0-9 and b-z without i, l, o (mã định danh thửa đất)",
        Format::TimeOfDay => "a time of day: HH:mm",
        Format::XsdTime => "a time of XML Schema: HH:mm:ss, with or without fraction and zone",
        Format::XsdDuration => "a duration of XML Schema, such as P1Y2M10DT2H30M",
    }
}

fn digits(text: &str, count: usize) -> bool {
    text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn citizen_id(text: &str) -> bool {
    digits(text, 12) && text.starts_with('0') && OLD_PROVINCES.contains(&&text[1..3])
}

/// An enterprise's code with its check digit, or, since 2025-07-01, the citizen id of an individual or of a household
/// business's owner (Circular 86/2024/TT-BTC, article 5).
fn tax_code(text: &str) -> bool {
    let (head, branch) = match text.len() {
        12 => return citizen_id(text),
        10 => (text, ""),
        13 => text.split_at_checked(10).unwrap_or((text, "")),
        14 if text.as_bytes()[10] == b'-' => (text.get(..10).unwrap_or(""), text.get(11..).unwrap_or("")),
        _ => return false,
    };
    digits(head, 10)
        && (branch.is_empty() || digits(branch, 3))
        && tax_check_digit(&head[..9]) == head[9..].parse::<u32>().ok()
}

fn agency_head(part: &str) -> bool {
    part.len() == 3 && part.as_bytes()[0].is_ascii_uppercase() && part.as_bytes()[1..].iter().all(u8::is_ascii_digit)
}

/// Groups of digits and capitals joined by dots, at most 35 characters (Decision 20/2020/QĐ-TTg): `H49`, `H21.129`, `H37.DN.001`,
/// `00.22.W00`, and the older `000.00.12.H49` (QCVN 102:2016/BTTTT). One group names the ministry or province; an enterprise has its own
/// code instead.
fn agency_code(text: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase());
    let groups = || text.split('.');
    (text.len() <= 35 && groups().all(plain) && groups().any(agency_head)) || (text.len() != 12 && tax_code(text))
}

fn time_of_day(text: &str) -> bool {
    let below = |part: &str, end: u32| digits(part, 2) && part.parse::<u32>().is_ok_and(|number| number < end);
    text.split_once(':').is_some_and(|(hours, minutes)| below(hours, 24) && below(minutes, 60))
}

/// GeoHash (WGS84) of a point inside the parcel (Circular 09/2024/TT-BTNMT).
fn parcel_id(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit() || (b'b'..=b'z').contains(&b) && !b"ilo".contains(&b))
}

/// `agency-yymmdd-serial` (Decree 61/2018/NĐ-CP as guided by Circular 01/2018/TT-VPCP).
fn dossier_number(text: &str) -> bool {
    let mut parts = text.splitn(3, '-');
    let (Some(agency), Some(day), Some(serial)) = (parts.next(), parts.next(), parts.next()) else { return false };
    agency_code(agency)
        && digits(day, 6)
        && matches!(day[2..4].parse::<u32>(), Ok(1..=12))
        && matches!(day[4..6].parse::<u32>(), Ok(1..=31))
        && (1..=10).contains(&serial.len())
        && serial.bytes().all(|byte| byte.is_ascii_digit())
}

fn procedure_code(text: &str) -> bool {
    let Some((head, rest)) = text.split_once('.') else { return false };
    let (number, agency) = rest.split_once('.').map_or((rest, None), |(number, agency)| (number, Some(agency)));
    (1..=2).contains(&head.len())
        && head.bytes().all(|b| b.is_ascii_digit())
        && digits(number, 6)
        && agency.is_none_or(agency_code)
}

fn person_name(text: &str) -> bool {
    !text.trim().is_empty()
        && text.chars().all(|c| c.is_alphabetic() || matches!(c, ' ' | '-' | '\'' | '.' | '’') || is_combining(c))
}

/// Combining marks of decomposed Vietnamese (NFD) letters.
fn is_combining(c: char) -> bool {
    ('\u{0300}'..='\u{036f}').contains(&c)
}

fn phone_number(text: &str) -> bool {
    let rest = text.strip_prefix('+').unwrap_or(text);
    (9..=15).contains(&rest.len()) && rest.bytes().all(|byte| byte.is_ascii_digit())
}

fn email(text: &str) -> bool {
    let Some((local, domain)) = text.split_once('@') else { return false };
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-_+".contains(c);
    text.len() <= 254
        && !local.is_empty()
        && local.chars().all(plain)
        && domain.contains('.')
        && domain
            .split('.')
            .all(|label| !label.is_empty() && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'))
}

fn code(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || ".-_/".contains(c)) && !text.contains("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_format_takes_what_is_right_and_refuses_what_is_near() {
        let cases: &[(Format, &[&str], &[&str])] = &[
            (
                Format::CitizenId,
                &["022199000123", "001088012345"],
                &["22199000123", "003199000123", "0221990001234", "02219900012a", "", "１２２１９９０００１２３"],
            ),
            (Format::OldCitizenId, &["100123456"], &["10012345", "1001234567"]),
            // 5700101080 was computed by hand: 5·31+7·29+1·19+1·13+8·3 … see tax_check_digit.
            (
                Format::TaxCode,
                &["0100109106", "0100109106001", "0100109106-001", "022176990141"],
                &["0100109107", "010010910", "0100109106-01", "0100109106x001", "003176990141"],
            ),
            (
                Format::SocialInsuranceNumber,
                &["2212345678", "022197990187"],
                &["221234567", "003197990187", "22123456789"],
            ),
            (
                Format::AgencyCode,
                &[
                    "H49",
                    "H49.12",
                    "G01.2.3",
                    "000.00.12.H49",
                    "H21.129",
                    "H37.DN.001",
                    "00.22.W00",
                    "0100109106",
                    "H49.12.345.678.901.234.567.890.AB",
                ],
                &[
                    "H4",
                    "h49",
                    "H49.",
                    "H49..1",
                    "H49.a",
                    "12.34",
                    "022176990141",
                    "H49.12.345.678.901.234.567.890.ABCDE",
                ],
            ),
            (
                Format::DossierNumber,
                &["H49.12-251103-0001", "000.00.12.H49-251103-00012", "G22.99.9-261109-9021", "H49.129-261109-9021"],
                &["H49.12-251303-0001", "H49.12-251132-1", "H49.12-251103", "-251103-1"],
            ),
            (Format::ProvinceCode, &["22", "79"], &["30", "2", "99"]),
            (Format::OldProvinceCode, &["30", "22"], &["03"]),
            (Format::ProcedureCode, &["1.004873", "2.001234.000.00.00.H49"], &["1.00487", "1004873", "1.004873.x"]),
            (Format::PersonName, &["Nguyễn Thị Hồng Hạnh", "PHẠM VĂN A"], &["", " ", "A<b>", "R2D2"]),
            (Format::PhoneNumber, &["0912345678", "+84912345678"], &["123", "09123 45678"]),
            (Format::Email, &["a.b@quangninh.gov.vn"], &["a@b", "@b.c", "a b@c.d", "a@b..c"]),
            (Format::Code, &["A1/2-3_4.5"], &["", "a b", "../../etc", "a&b"]),
            (Format::TimeOfDay, &["00:00", "23:59"], &["24:00", "8:30", "08:60", "08:30:00"]),
            (Format::XsdTime, &["08:30:00", "08:30:00.5+07:00"], &["08:30", "08:30:00+7"]),
            (Format::XsdDuration, &["P30D", "PT36H"], &["30", "P", "P1W"]),
            (Format::ParcelId, &["w7sp5y3vp3bx"], &["w7sp5y3vp3ax", "w7sp5y3vp3ix", "w7sp5y3vp3b", "W7SP5Y3VP3BX"]),
        ];
        for (format, right, wrong) in cases {
            for text in *right {
                assert!(check(*format, text).is_ok(), "{format:?} must take {text:?}");
                let pattern = crate::contract::patterns::pattern(*format).map(|text| regex::Regex::new(&text));
                let fits = pattern.is_none_or(|one| one.is_ok_and(|one| one.is_match(text)));
                assert!(fits, "{format:?}: {text:?} must fit the pattern");
            }
            for text in *wrong {
                assert!(check(*format, text).is_err(), "{format:?} must refuse {text:?}");
            }
        }
    }
}
