//! One consistent generated province: a person is the same in every source. Everything follows from a seed number, so two
//! sandboxes with one seed have the same records.

pub mod names;
mod people;
mod records;

use names::Town;
pub use people::{Gender, Household, Person};
pub use records::{BudgetUnit, Dossier, Enterprise, Official, Parcel, ParcelOwner, Registration};

/// Minimum number of people of a sandbox.
pub const MIN_PEOPLE: usize = 2_000;

/// The province.
#[derive(Debug)]
pub struct Province {
    /// All people.
    pub people: Vec<Person>,
    /// Their households.
    pub households: Vec<Household>,
    /// Enterprises.
    pub enterprises: Vec<Enterprise>,
    /// Registrations of enterprises.
    pub registrations: Vec<Registration>,
    /// Parcels of land.
    pub parcels: Vec<Parcel>,
    /// The portal's dossiers.
    pub dossiers: Vec<Dossier>,
    /// Officials.
    pub officials: Vec<Official>,
    /// Budget units.
    pub budget_units: Vec<BudgetUnit>,
}

impl Province {
    /// Generates the province of a seed, with at least `people` people.
    pub fn new(seed: u64, people: usize) -> Self {
        let mut random = Random(seed);
        let (people, households) = people::make(&mut random, people.max(MIN_PEOPLE));
        let enterprises = records::enterprises(&mut random, &people);
        Province {
            registrations: records::registrations(&mut random, &enterprises),
            parcels: records::parcels(&mut random, &people, &households, &enterprises),
            dossiers: records::dossiers(&mut random, &people),
            officials: records::officials(&mut random, &people),
            budget_units: records::budget_units(),
            people,
            households,
            enterprises,
        }
    }

    /// Finds a person by citizen id.
    pub fn by_citizen_id(&self, id: &str) -> Option<&Person> {
        self.people.iter().find(|person| person.citizen_id == id)
    }

    /// Finds a person by old id.
    pub fn by_old_id(&self, id: &str) -> Option<&Person> {
        self.people.iter().find(|person| person.old_id.as_deref() == Some(id))
    }

    /// Returns the household of a person.
    pub fn household(&self, person: &Person) -> &Household {
        &self.households[person.household]
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): the same numbers on every machine and with every crate version.
#[derive(Debug)]
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `end` (at least 1).
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// Returns a number from `from` to `to`.
    pub fn between(&mut self, from: usize, to: usize) -> usize {
        from + self.below(to - from + 1)
    }

    /// Returns true with a probability of `percent`.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// Returns one of the items.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// Returns one of the communes.
    pub fn town(&mut self) -> &'static Town {
        &names::TOWNS[self.below(names::TOWNS.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::formats::{Format, check};
    use std::collections::HashSet;

    #[test]
    fn a_seed_generates_one_province_with_valid_and_unique_codes() {
        let (province, again) = (Province::new(22, 2_000), Province::new(22, 2_000));
        assert_eq!(format!("{province:?}"), format!("{again:?}"));
        assert_ne!(province.people[0].citizen_id, Province::new(23, 2_000).people[0].citizen_id);
        assert!(province.people.len() >= 2_000 && province.enterprises.len() >= 300);
        assert!(!province.parcels.is_empty() && province.officials.len() >= 60);
        let ids: HashSet<&str> = province.people.iter().map(|person| person.citizen_id.as_str()).collect();
        assert_eq!(ids.len(), province.people.len());
        for person in &province.people {
            assert!(check(Format::CitizenId, &person.citizen_id).is_ok(), "{person:?}");
            assert!(check(Format::SocialInsuranceNumber, &person.insurance_number).is_ok());
            assert!(check(Format::PersonName, &person.full_name()).is_ok());
            assert!(person.old_id.as_deref().is_none_or(|id| check(Format::OldCitizenId, id).is_ok()));
        }
        for enterprise in &province.enterprises {
            assert!(check(Format::TaxCode, &enterprise.code).is_ok(), "{enterprise:?}");
        }
        for dossier in &province.dossiers {
            assert!(check(Format::DossierNumber, &dossier.number).is_ok(), "{dossier:?}");
        }
    }
}
