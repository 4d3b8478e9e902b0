//! Records about people: enterprises, parcels, dossiers, offices.

use super::names::{GIVEN_M, PROCEDURES, STREETS, TRADES, Town};
use super::{Household, Person, Random};
use crate::contract::formats::tax_check_digit;

/// An enterprise.
#[derive(Debug, Clone)]
pub struct Enterprise {
    /// Mã số thuế, with its check digit.
    pub code: String,
    /// Tên doanh nghiệp.
    pub name: String,
    /// Tên viết tắt.
    pub short_name: String,
    /// Trade: an index into `names::TRADES`.
    pub trade: usize,
    /// Loại hình: code and name.
    pub kind: (&'static str, &'static str),
    /// 1 active, 2 suspended, 3 dissolved.
    pub status: &'static str,
    /// Ngày thành lập: day, month, year.
    pub founded: (u8, u8, u16),
    /// Vốn điều lệ, in đồng.
    pub capital: u64,
    /// Representatives, as indexes in the list of people.
    pub representatives: Vec<usize>,
    /// Its commune.
    pub town: &'static Town,
    /// House and street.
    pub detail: String,
}

/// A registration of an enterprise.
#[derive(Debug, Clone)]
pub struct Registration {
    /// Số biên nhận.
    pub journal: String,
    /// The enterprise, as an index.
    pub enterprise: usize,
    /// Ngày tiếp nhận: day in November 2026.
    pub day: u8,
    /// 1 received, 2 in work, 3 granted.
    pub status: &'static str,
}

/// The owner of a parcel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParcelOwner {
    /// A person, as an index in the list of people.
    Person(usize),
    /// An enterprise, as an index.
    Enterprise(usize),
}

/// A parcel of land.
#[derive(Debug, Clone)]
pub struct Parcel {
    /// Its commune.
    pub town: &'static Town,
    /// Số tờ bản đồ.
    pub sheet: usize,
    /// Số thửa.
    pub number: usize,
    /// Diện tích, in a tenth of a square metre.
    pub area_dm: usize,
    /// Ký hiệu mục đích sử dụng.
    pub uses: Vec<&'static str>,
    /// Chủ sử dụng.
    pub owners: Vec<ParcelOwner>,
    /// Số phát hành of the certificate.
    pub issue_number: String,
    /// Mã định danh thửa đất: 12 characters of GeoHash's alphabet.
    pub id: String,
}

/// A dossier on the portal.
#[derive(Debug, Clone)]
pub struct Dossier {
    /// Mã hồ sơ.
    pub number: String,
    /// Procedure: an index into `names::PROCEDURES`.
    pub procedure: usize,
    /// The applicant, as an index in the list of people.
    pub applicant: usize,
    /// Trạng thái.
    pub status: &'static str,
    /// Ngày tiếp nhận, `yyyyMMddHHmmss`.
    pub received: String,
    /// Ngày hẹn trả.
    pub due: String,
}

/// An official.
#[derive(Debug, Clone)]
pub struct Official {
    /// The person, as an index in the list of people.
    pub person: usize,
    /// Số hiệu.
    pub code: String,
    /// Mã định danh cơ quan.
    pub agency: String,
    /// Tên cơ quan.
    pub agency_name: &'static str,
    /// Chức vụ.
    pub position: &'static str,
    /// Mã ngạch.
    pub grade: &'static str,
    /// Hệ số lương, in hundredths.
    pub salary_hundredths: usize,
}

/// A budget unit.
#[derive(Debug, Clone)]
pub struct BudgetUnit {
    /// Mã số ĐVQHNS.
    pub code: String,
    /// Tên đơn vị.
    pub name: String,
    /// Mã chương.
    pub chapter: &'static str,
    /// Mã cấp dự toán.
    pub level: u8,
    /// Mã đơn vị cấp trên.
    pub parent: Option<String>,
    /// Địa chỉ.
    pub address: String,
    /// 1 active, 0 closed.
    pub status: &'static str,
}

const KINDS: [(&str, &str); 4] = [
    ("TNHH1TV", "Công ty TNHH một thành viên"),
    ("TNHH2TV", "Công ty TNHH hai thành viên trở lên"),
    ("CP", "Công ty cổ phần"),
    ("DNTN", "Doanh nghiệp tư nhân"),
];

pub(super) fn enterprises(random: &mut Random, people: &[Person]) -> Vec<Enterprise> {
    let adults: Vec<&Person> = people.iter().filter(|person| person.birth.0 < 2000).collect();
    let mut found = Vec::new();
    let mut serial = 0;
    while found.len() < 320 {
        serial += 1;
        // About one number in eleven has no check digit and is never assigned.
        let head = format!("57{serial:07}");
        let Some(check) = tax_check_digit(&head) else { continue };
        let trade = random.below(TRADES.len());
        let kind = random.pick(&KINDS);
        let word = random.pick(&GIVEN_M);
        let representatives = if kind.0 == "TNHH2TV" || kind.0 == "CP" { random.between(1, 3) } else { 1 };
        found.push(Enterprise {
            code: format!("{head}{check}"),
            name: format!("{} {} {word} {serial}", kind.1.to_uppercase(), TRADES[trade].2.to_uppercase()),
            short_name: format!("{word} {serial} Co."),
            trade,
            kind,
            status: if random.chance(90) { "1" } else { random.pick(&["2", "3"]) },
            founded: (random.between(1, 28) as u8, random.between(1, 12) as u8, random.between(1998, 2024) as u16),
            capital: 100_000_000 * random.between(1, 900) as u64,
            representatives: (0..representatives).map(|_| adults[random.below(adults.len())].index).collect(),
            town: random.town(),
            detail: format!("Số {}, {}", random.between(1, 400), random.pick(&STREETS)),
        });
    }
    found
}

pub(super) fn registrations(random: &mut Random, enterprises: &[Enterprise]) -> Vec<Registration> {
    let one = |serial: usize| Registration {
        journal: format!("{}", 2_611_000_000_u64 + serial as u64),
        enterprise: random.below(enterprises.len()),
        day: (1 + serial % 24) as u8,
        status: random.pick(&["1", "2", "3"]),
    };
    (0..720).map(one).collect()
}

pub(super) fn parcels(
    random: &mut Random,
    people: &[Person],
    households: &[Household],
    enterprises: &[Enterprise],
) -> Vec<Parcel> {
    let mut found = Vec::new();
    let mut add = |random: &mut Random, town: &'static Town, owners: Vec<ParcelOwner>, uses: Vec<&'static str>| {
        let serial = found.len();
        found.push(Parcel {
            town,
            sheet: 1 + serial / 40,
            number: 1 + serial % 40,
            area_dm: random.between(500, 6_000),
            uses,
            owners,
            issue_number: format!("CĐ {:06}", 100_000 + serial),
            id: parcel_id(serial),
        });
    };
    for household in households.iter().step_by(2) {
        let head = household.members[0];
        let owners = [Some(head), people[head].spouse].into_iter().flatten().map(ParcelOwner::Person).collect();
        let uses = if random.chance(40) { vec!["ODT", "CLN"] } else { vec!["ODT"] };
        add(random, household.town, owners, uses);
    }
    for (index, enterprise) in enterprises.iter().enumerate().step_by(4) {
        add(random, enterprise.town, vec![ParcelOwner::Enterprise(index)], vec!["SKC"]);
    }
    found
}

/// An id in the real format, of a point that does not exist: the cell of Quảng Ninh, and a serial number.
fn parcel_id(serial: usize) -> String {
    const ALPHABET: &[u8] = b"0123456789bcdefghjkmnpqrstuvwxyz";
    let digit = |place: u32| char::from(ALPHABET[(serial >> (5 * place)) & 31]);
    let serial: String = (0..8).rev().map(digit).collect();
    format!("w7sp{serial}")
}

pub(super) fn dossiers(random: &mut Random, people: &[Person]) -> Vec<Dossier> {
    let adults: Vec<&Person> = people.iter().filter(|person| person.birth.0 < 2005).collect();
    let one = |serial: usize| {
        let day = 1 + serial % 24;
        let procedure = random.below(PROCEDURES.len());
        Dossier {
            number: format!("H49.12-2611{day:02}-{:04}", 1 + serial),
            procedure,
            applicant: adults[random.below(adults.len())].index,
            status: random.pick(&["2", "4", "9", "10"]),
            received: format!("202611{day:02}0{}{:02}00", random.between(7, 9), random.below(60)),
            due: format!("202612{:02}170000", 1 + day % 20),
        }
    };
    (0..240).map(one).collect()
}

pub(super) fn officials(random: &mut Random, people: &[Person]) -> Vec<Official> {
    const AGENCIES: [(&str, &str); 6] = [
        ("H49.1", "Văn phòng Ủy ban nhân dân thành phố"),
        ("H49.3", "Sở Tư pháp"),
        ("H49.5", "Sở Tài chính"),
        ("H49.9", "Sở Nông nghiệp và Môi trường"),
        ("H49.12", "Trung tâm Phục vụ hành chính công thành phố"),
        ("H49.18", "Sở Nội vụ"),
    ];
    const POSITIONS: [(&str, &str); 4] = [
        ("Chuyên viên", "01.003"),
        ("Chuyên viên chính", "01.002"),
        ("Trưởng phòng", "01.002"),
        ("Văn thư viên", "02.007"),
    ];
    let adults = people.iter().filter(|person| (1966..2002).contains(&person.birth.0)).step_by(13);
    let mut one = |(serial, person): (usize, &Person)| {
        let (agency, agency_name) = random.pick(&AGENCIES);
        let (position, grade) = random.pick(&POSITIONS);
        let salary_hundredths = random.between(234, 678);
        let code = format!("QN{:06}", 1 + serial);
        Official {
            person: person.index,
            code,
            agency: agency.to_owned(),
            agency_name,
            position,
            grade,
            salary_hundredths,
        }
    };
    adults.take(80).enumerate().map(&mut one).collect()
}

pub(super) fn budget_units() -> Vec<BudgetUnit> {
    let mut units = vec![BudgetUnit {
        code: "1057000".into(),
        name: "Ủy ban nhân dân thành phố Quảng Ninh".into(),
        chapter: "405",
        level: 1,
        parent: None,
        address: "Phường Hồng Gai, thành phố Quảng Ninh".into(),
        status: "1",
    }];
    for (index, place) in super::names::TOWNS.iter().enumerate() {
        for (kind, chapter) in [("Ủy ban nhân dân", "805"), ("Trường Tiểu học", "822"), ("Trạm Y tế", "823")]
        {
            units.push(BudgetUnit {
                code: format!("{}", 1_057_001 + units.len()),
                name: format!("{kind} {}", place.commune_name),
                chapter,
                level: 4,
                parent: Some("1057000".into()),
                address: format!("{}, thành phố Quảng Ninh", place.commune_name),
                status: if index == 11 && chapter == "823" { "0" } else { "1" },
            });
        }
    }
    units
}
