//! People and their households.

use super::Random;
use super::names::{FAMILIES, GIVEN_F, GIVEN_M, MIDDLES_F, MIDDLES_M, STREETS, Town};
use std::collections::HashSet;

/// Sex as registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gender {
    /// Nam.
    Male,
    /// Nữ.
    Female,
}

/// A person.
#[derive(Debug, Clone)]
pub struct Person {
    /// Index in the list of people.
    pub index: usize,
    /// Số định danh cá nhân.
    pub citizen_id: String,
    /// Số chứng minh nhân dân, for some of those born before 2000.
    pub old_id: Option<String>,
    /// Mã số bảo hiểm xã hội.
    pub insurance_number: String,
    /// Họ.
    pub family: &'static str,
    /// Chữ đệm.
    pub middle: &'static str,
    /// Tên.
    pub given: &'static str,
    /// Giới tính.
    pub gender: Gender,
    /// Year, month, day; month and day are 0 if only the year is registered.
    pub birth: (u16, u8, u8),
    /// Dân tộc, by code.
    pub ethnicity: &'static str,
    /// Tôn giáo, by code.
    pub religion: &'static str,
    /// Nhóm máu.
    pub blood: &'static str,
    /// Whether married.
    pub married: bool,
    /// Index in the list of households.
    pub household: usize,
    /// Quan hệ với chủ hộ.
    pub relation: &'static str,
    /// Father, as an index in the list of people.
    pub father: Option<usize>,
    /// Mother.
    pub mother: Option<usize>,
    /// Spouse.
    pub spouse: Option<usize>,
    /// Telephone.
    pub phone: String,
}

impl Person {
    /// Họ và tên.
    pub fn full_name(&self) -> String {
        format!("{} {} {}", self.family, self.middle, self.given)
    }

    /// Whether the registers have no information on sex and marital status (both are code 0 there).
    pub fn bare(&self) -> bool {
        self.index % 97 == 96
    }

    /// `yyyyMMdd`, if the complete date is registered.
    pub fn birth_compact(&self) -> Option<String> {
        let (year, month, day) = self.birth;
        (month > 0).then(|| format!("{year:04}{month:02}{day:02}"))
    }

    /// `dd/MM/yyyy`, or the year alone.
    pub fn birth_text(&self) -> String {
        let (year, month, day) = self.birth;
        if month > 0 { format!("{day:02}/{month:02}/{year:04}") } else { format!("{year:04}") }
    }

    /// Mã thẻ bảo hiểm y tế.
    pub fn card_number(&self) -> String {
        format!("GD4{}22{}", 22, &self.insurance_number[2..])
    }
}

/// A household.
#[derive(Debug, Clone)]
pub struct Household {
    /// Số sổ hộ khẩu.
    pub number: String,
    /// Its commune.
    pub town: &'static Town,
    /// House and street.
    pub detail: String,
    /// Its members, head first.
    pub members: Vec<usize>,
}

impl Household {
    /// The address as text in the two-tier order; Quảng Ninh is a centrally-run city since 2026-09-01 (Resolution 36/2026/QH16).
    pub fn address(&self) -> String {
        format!("{}, {}, thành phố Quảng Ninh", self.detail, self.town.commune_name)
    }
}

struct Maker<'r> {
    random: &'r mut Random,
    people: Vec<Person>,
    used: HashSet<String>,
}

/// Generates households until there are enough people.
pub fn make(random: &mut Random, count: usize) -> (Vec<Person>, Vec<Household>) {
    let mut maker = Maker { random, people: Vec::new(), used: HashSet::new() };
    let mut households = Vec::new();
    while maker.people.len() < count {
        let index = households.len();
        households.push(maker.household(index));
    }
    (maker.people, households)
}

impl Maker<'_> {
    fn household(&mut self, index: usize) -> Household {
        let town = self.random.town();
        let detail = format!("Số {}, {}", self.random.between(1, 400), self.random.pick(&STREETS));
        let family = self.random.pick(&FAMILIES);
        let year = self.random.between(1955, 1988);
        let head = self.person(index, Gender::Male, family, year, "CH01");
        let mut members = vec![head];
        if self.random.chance(85) {
            let wife_family = self.random.pick(&FAMILIES);
            let wife_year = year + self.random.below(5);
            let wife = self.person(index, Gender::Female, wife_family, wife_year, "CH02");
            self.people[head].spouse = Some(wife);
            self.people[wife].spouse = Some(head);
            self.people[head].married = true;
            self.people[wife].married = true;
            members.push(wife);
            for _ in 0..self.random.below(4) {
                let gender = if self.random.chance(51) { Gender::Male } else { Gender::Female };
                let child_year = (wife_year + self.random.between(21, 33)).min(2025);
                let child = self.person(index, gender, family, child_year, "CH03");
                self.people[child].father = Some(head);
                self.people[child].mother = Some(wife);
                members.push(child);
            }
        }
        let number = format!("22{:07}", 1_000 + index);
        Household { number, town, detail, members }
    }

    fn person(
        &mut self,
        household: usize,
        gender: Gender,
        family: &'static str,
        year: usize,
        relation: &'static str,
    ) -> usize {
        let index = self.people.len();
        let random = &mut *self.random;
        let (middles, givens) = match gender {
            Gender::Male => (&MIDDLES_M, &GIVEN_M),
            Gender::Female => (&MIDDLES_F, &GIVEN_F),
        };
        let (middle, given) = (random.pick(middles), random.pick(givens));
        // The century and sex digit: 0 and 1 for the 20th century, 2 and 3 for the 21st.
        let century = if year < 2000 { 0 } else { 2 } + usize::from(gender == Gender::Female);
        let citizen_id = loop {
            let id = format!("022{century}{:02}{:06}", year % 100, random.below(1_000_000));
            if self.used.insert(id.clone()) {
                break id;
            }
        };
        // For some old people only the year of birth is known.
        let whole = year > 1960 || random.chance(60);
        let birth = (year as u16, random.between(1, 12) as u8, random.between(1, 28) as u8);
        self.people.push(Person {
            index,
            citizen_id,
            old_id: (year < 2000 && random.chance(60)).then(|| format!("1{:08}", 1_000_000 + index * 17)),
            insurance_number: format!("22{:08}", 10_000_000 + index * 7),
            family,
            middle,
            given,
            gender,
            birth: if whole { birth } else { (birth.0, 0, 0) },
            ethnicity: if random.chance(88) { "01" } else { random.pick(&["02", "03", "08", "21"]) },
            religion: if random.chance(92) { "00" } else { random.pick(&["01", "02"]) },
            blood: random.pick(&["O", "A", "B", "AB"]),
            married: false,
            household,
            relation,
            father: None,
            mother: None,
            spouse: None,
            phone: format!("09{:08}", 10_000_000 + random.below(89_999_999)),
        });
        index
    }
}
