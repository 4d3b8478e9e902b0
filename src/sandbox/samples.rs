//! One call of every operation, with the sandbox's response: for `demo`, for tests in every language, and as a starting
//! point for developers (`ndxp-gateway sandbox samples`).

use super::province::names::PROCEDURES;
use super::province::{Gender, ParcelOwner, Person, Province};
use base64::Engine;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::OnceLock;

/// One call, in the JSON form of protobuf.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    /// Full method name, `package.Service/Method`.
    pub operation: String,
    /// Request messages: one, or those of a client stream.
    pub requests: Vec<Value>,
    /// `ndxp-purpose`.
    pub purpose: String,
    /// `ndxp-official`.
    pub official: String,
    /// Required content of the first response message.
    pub expect: Value,
    /// Minimum number of response messages.
    pub messages: usize,
}

/// The sandbox's default seed and its minimum population.
const PROVINCE: (u64, usize) = (22, 0);
/// A dossier number that none of the sandbox's dossiers has.
const NEW_DOSSIER: &str = "H49.12-261125-8001";
/// The one for a civil registration.
const NEW_REGISTRATION: &str = "H49.12-261125-8002";
/// The one for a joined registration.
const NEW_JOINED: &str = "H49.12-261125-8004";
/// The one for a criminal-record certificate.
const NEW_REQUEST: &str = "H49.12-261125-8003";
/// The acting official: a citizen id, as the population database requires.
pub const OFFICIAL: &str = "022080990129";

fn date(birth: (u16, u8, u8)) -> Value {
    match birth {
        (year, 0, _) => json!({ "year": year }),
        (year, month, 0) => json!({ "year": year, "month": month }),
        (year, month, day) => json!({ "year": year, "month": month, "day": day }),
    }
}

fn day(day: u8) -> Value {
    json!({ "year": 2026, "month": 11, "day": day })
}

fn gender(person: &Person) -> &'static str {
    if person.gender == Gender::Male { "MALE" } else { "FEMALE" }
}

struct Samples<'p> {
    province: &'p Province,
    all: Vec<Sample>,
}

/// Returns a call of an operation (`package.Service/Method`) in the sandbox's default province, which is made the first time: some 30 ms.
pub fn of(operation: &str) -> Option<&'static Sample> {
    static ALL: OnceLock<HashMap<String, Sample>> = OnceLock::new();
    let made = || samples(&Province::new(PROVINCE.0, PROVINCE.1)).into_iter();
    ALL.get_or_init(|| made().map(|one| (one.operation.clone(), one)).collect()).get(operation)
}

/// Returns one call of every operation of the ten sources, writes before their reads.
pub fn samples(province: &Province) -> Vec<Sample> {
    let mut samples = Samples { province, all: Vec::new() };
    samples.population();
    samples.publicservice();
    samples.business();
    samples.insurance();
    samples.civilstatus();
    samples.criminalrecord();
    samples.land();
    samples.catalogue();
    samples.budgetunit();
    samples.officials();
    samples.all
}

impl Samples<'_> {
    fn add(&mut self, operation: &str, request: Value, expect: Value) {
        self.all.push(Sample {
            operation: operation.to_owned(),
            requests: vec![request],
            purpose: "1.004222".into(),
            official: OFFICIAL.into(),
            expect,
            messages: 1,
        });
    }

    fn several(&mut self, operation: &str, request: Value, expect: Value, messages: usize) {
        self.add(operation, request, expect);
        if let Some(last) = self.all.last_mut() {
            last.messages = messages;
        }
    }

    /// A person with a complete birth date, a spouse and children.
    fn person(&self) -> &Person {
        let fits = |person: &&Person| person.spouse.is_some() && person.birth.1 > 0 && person.old_id.is_some();
        self.province.people.iter().find(fits).unwrap_or(&self.province.people[0])
    }

    fn population(&mut self) {
        let service = "ndxp.population.v1.PopulationService";
        let person = self.person().clone();
        let household = self.province.household(&person).clone();
        let claim = json!({
            "citizenId": person.citizen_id, "fullName": person.full_name(), "birthDate": date(person.birth),
        });
        self.add(&format!("{service}/VerifyCitizen"), claim.clone(), json!({ "matched": true }));
        let expect = json!({
            "citizenId": person.citizen_id, "gender": gender(&person), "birthDate": date(person.birth),
            "householdNumber": household.number, "permanentAddress": { "provinceCode": "22" },
        });
        self.add(&format!("{service}/GetCitizen"), claim, expect);
        let request = json!({ "citizenId": person.citizen_id });
        self.add(&format!("{service}/GetHousehold"), request, json!({ "householdNumber": household.number }));
    }

    fn publicservice(&mut self) {
        let service = "ndxp.publicservice.v1.PublicServiceService";
        let person = self.person().clone();
        let procedure = PROCEDURES[5];
        let dossier = json!({
            "dossierNumber": NEW_DOSSIER, "procedureCode": procedure.0, "procedureName": procedure.1,
            "applicantName": person.full_name(), "applicantKind": "CITIZEN", "channel": "1",
            "identities": [{ "kind": "CITIZEN_ID", "number": person.citizen_id }],
            "phone": person.phone, "receivedAt": "2026-11-25T01:30:00Z", "dueAt": "2026-12-02T10:00:00Z",
            "status": "RECEIVED", "fees": [{ "name": "Lệ phí", "code": "1", "amountVnd": "15000" }],
        });
        let request = json!({ "updating": false, "dossiers": [dossier] });
        self.add(&format!("{service}/SyncDossiers"), request, json!({}));
        let step = json!({
            "dossierNumber": NEW_DOSSIER, "handler": "Nguyễn Thị Hạnh", "handlerTitle": "Chuyên viên",
            "handledAt": "2026-11-25T02:00:00Z", "department": "Bộ phận một cửa", "content": "Đã tiếp nhận",
            "status": "IN_PROGRESS",
        });
        let request = json!({ "steps": [step] });
        self.add(&format!("{service}/UpdateProgress"), request, json!({}));
        let known = &self.province.dossiers[0];
        let applicant = self.province.people[known.applicant].full_name();
        let (number, expect) =
            (known.number.clone(), json!({ "dossierNumber": known.number, "applicantName": applicant }));
        self.add(&format!("{service}/GetDossier"), json!({ "dossierNumber": number }), expect);
        let request = json!({ "citizenId": person.citizen_id });
        self.add(&format!("{service}/ListDigitisedPapers"), request, json!({}));
        let expect = json!({ "procedureCode": procedure.0, "name": procedure.1 });
        self.add(&format!("{service}/GetProcedure"), json!({ "procedureCode": procedure.0 }), expect);
        let expect = json!({ "procedureCode": PROCEDURES[0].0 });
        self.several(&format!("{service}/ListProcedures"), json!({}), expect, PROCEDURES.len());
    }

    fn business(&mut self) {
        let service = "ndxp.business.v1.BusinessService";
        let enterprise = self.province.enterprises[0].clone();
        let request = json!({ "enterpriseCode": enterprise.code });
        let expect = json!({
            "enterpriseCode": enterprise.code, "name": enterprise.name, "capitalVnd": enterprise.capital.to_string(),
        });
        self.add(&format!("{service}/GetEnterprise"), request.clone(), expect);
        let expect = json!({ "enterpriseCode": enterprise.code, "name": enterprise.name });
        self.add(&format!("{service}/VerifyEnterprise"), request, expect);
        let request = json!({ "fromDate": day(3), "toDate": day(7) });
        self.several(&format!("{service}/ListRegistrations"), request, json!({ "kind": "Đăng ký thay đổi" }), 120);
        let request = json!({ "fromTime": "08:00", "toTime": "17:00" });
        self.several(&format!("{service}/ListRegistrationsOfToday"), request, json!({ "officeId": "2201" }), 30);
        let journal = self.province.registrations[0].journal.clone();
        let expect = json!({ "journalNumber": journal });
        self.add(&format!("{service}/GetRegistration"), json!({ "journalNumber": journal }), expect);
    }

    fn insurance(&mut self) {
        let service = "ndxp.insurance.v1.InsuranceService";
        let person = self.person().clone();
        let expect = json!({ "fullName": person.full_name(), "oldBookNumber": person.insurance_number });
        let request = json!({ "insuranceNumber": person.insurance_number });
        self.add(&format!("{service}/GetHousehold"), request, expect);
        let request = json!({
            "fullName": person.full_name(), "birthDate": date(person.birth), "gender": gender(&person),
            "provinceCode": "22", "birthPlace": true,
        });
        // The number is the citizen id since 2025-08-01.
        let found = json!({ "insuranceNumber": person.citizen_id });
        self.add(&format!("{service}/FindInsuranceNumber"), request, found);
        let household = self.province.household(&person).number.clone();
        let expect = json!({ "householdCode": household, "insuranceNumber": person.citizen_id });
        let request = json!({
            "provinceCode": "22", "fullName": person.full_name(), "birthDate": date(person.birth), "gender": gender(&person),
            "cardNumber": person.card_number(),
        });
        self.add(&format!("{service}/FindHousehold"), request, expect);
    }

    fn civilstatus(&mut self) {
        let service = "ndxp.civilstatus.v1.CivilStatusService";
        let father = self.person().clone();
        let record = json!({
            "fullName": format!("{} Minh Khôi", father.family), "gender": "MALE", "birthDate": day(20),
            "birthCommuneCode": "06673", "ethnicityCode": "01",
            "father": { "fullName": father.full_name(), "citizenId": father.citizen_id },
        });
        let request = json!({
            "module": "BIRTH", "dossierNumber": NEW_REGISTRATION, "receivedOn": day(25), "unitCode": "06685", "record": record,
        });
        self.add(&format!("{service}/Register"), request, json!({}));
        let named = json!({ "dossierNumber": NEW_REGISTRATION });
        self.add(&format!("{service}/GetStatus"), named.clone(), json!({}));
        self.add(&format!("{service}/GetResult"), named.clone(), named.clone());
        let request = json!({ "module": "BIRTH", "updatedOn": day(3) });
        self.add(&format!("{service}/ListRegistered"), request, json!({}));
        let request = json!({ "module": "BIRTH", "sourceId": "990000001" });
        let expect = json!({ "record": { "sourceId": "990000001", "registrationNumber": "1" } });
        self.add(&format!("{service}/GetRecord"), request, expect);
        let request = json!({ "provinceCode": "22", "module": "BIRTH", "dossierNumbers": [NEW_REGISTRATION] });
        self.add(&format!("{service}/ListRecords"), request, json!({}));
        let form = json!({
            "registrationKind": "1", "copies": "2", "childName": format!("{} Minh Khôi", father.family), "childGender": "MALE",
            "childBirthDate": day(20), "fatherName": father.full_name(), "fatherCitizenId": father.citizen_id,
            "childHomeTown": { "provinceCode": "22", "communeCode": "06685" },
            "requesterName": father.full_name(), "requesterRelation": "Cha", "requesterCitizenId": father.citizen_id,
        });
        let request = json!({
            "module": "JOINED_BIRTH", "unitCode": "06685", "joinedNumber": "G22.99.9-261125-8004",
            "dossierNumber": NEW_JOINED, "receivedAt": "2026-11-25T01:30:15Z", "record": form,
        });
        self.add(&format!("{service}/RegisterJoined"), request, json!({}));
        let request = json!({ "provinceCode": "22", "module": "JOINED_BIRTH", "dossierNumbers": [NEW_JOINED] });
        self.add(&format!("{service}/ListJoinedResults"), request, json!({}));
    }

    fn criminalrecord(&mut self) {
        let service = "ndxp.criminalrecord.v1.CriminalRecordService";
        let person = self.person().clone();
        let request = json!({
            "dossierNumber": NEW_REQUEST, "receivedOn": day(25), "promisedOn": day(30),
            "declaration": {
                "fullName": person.full_name(), "gender": gender(&person), "birthDate": date(person.birth),
                "birthPlace": "Quảng Ninh", "residence": "Quảng Ninh", "residenceRegionId": 99022, "nationalityId": 1,
                "identityPaper": "CITIZEN_CARD", "identityNumber": person.citizen_id, "form": "FORM_1", "quantity": 1,
                "phone": person.phone, "declaredOn": day(25), "declarationTypeId": 3846, "requesterKindId": 72,
            },
            "residences": [{ "fromDate": { "year": 2010, "month": 5 }, "place": "Hạ Long", "job": "Giáo viên" }],
        });
        self.add(&format!("{service}/SubmitRequest"), request, json!({}));
        let named = json!({ "dossierNumber": NEW_REQUEST });
        let expect = json!({ "status": "RECEIVED", "statusName": "STP đã tiếp nhận" });
        self.add(&format!("{service}/GetRequestStatus"), named.clone(), expect);
        let expect = json!({ "status": "IN_PROGRESS" });
        self.several(&format!("{service}/WatchRequest"), named, expect, 2);
        self.add(&format!("{service}/ListChanges"), json!({}), json!({}));
        let own = base64::engine::general_purpose::STANDARD.encode(NEW_REQUEST);
        self.add(&format!("{service}/AcknowledgeChanges"), json!({ "sourceNumbers": [own] }), json!({}));
    }

    fn land(&mut self) {
        let service = "ndxp.land.v1.LandService";
        let parcel = self.province.parcels[0].clone();
        let request = json!({
            "communeCode": parcel.town.commune, "mapSheet": parcel.sheet.to_string(),
            "parcelNumber": parcel.number.to_string(),
        });
        let named = json!({ "parcelId": parcel.id });
        self.add(&format!("{service}/GetParcelById"), named.clone(), named);
        self.add(&format!("{service}/GetParcel"), request.clone(), request);
        if let Some(ParcelOwner::Person(owner)) = parcel.owners.first() {
            let id = self.province.people[*owner].citizen_id.clone();
            self.add(&format!("{service}/ListParcelsByOwner"), json!({ "citizenId": id }), json!({}));
        }
    }

    fn catalogue(&mut self) {
        let service = "ndxp.catalogue.v1.CatalogueService";
        self.several(&format!("{service}/ListCatalogues"), json!({}), json!({ "code": "madantoc" }), 9);
        let request = json!({ "code": "madantoc" });
        self.add(&format!("{service}/GetSchema"), request.clone(), json!({}));
        let expect = json!({ "values": { "MA": "01", "TEN": "Kinh" } });
        self.several(&format!("{service}/StreamCatalogue"), request, expect, 5);
        // A new row for each call: the same one twice is a duplicate.
        let code = format!("S{}", uuid::Uuid::new_v4().simple());
        let request = json!({ "code": "madantoc", "rows": [{ "values": { "MA": code, "TEN": "Dân tộc mẫu" } }] });
        self.add(&format!("{service}/AddRows"), request, json!({ "added": 1 }));
    }

    fn budgetunit(&mut self) {
        let service = "ndxp.budgetunit.v1.BudgetUnitService";
        let unit = self.province.budget_units[1].clone();
        let expect = json!({ "unitCode": unit.code, "name": unit.name, "status": "ACTIVE" });
        self.add(&format!("{service}/GetUnit"), json!({ "unitCode": unit.code }), expect);
        let request = json!({
            "name": "Trường Mầm non Hoa Mai", "chapterCode": "822", "estimateLevel": 4, "parentUnitCode": unit.code,
            "address": "Phường Bãi Cháy, thành phố Quảng Ninh",
        });
        let expect = json!({ "promisedOn": { "year": 2026, "month": 12, "day": 5 } });
        self.add(&format!("{service}/RequestUnitCode"), request, expect);
    }

    fn officials(&mut self) {
        let service = "ndxp.officials.v1.OfficialsService";
        let official = self.province.officials[0].clone();
        let person = self.province.people[official.person].clone();
        let expect = json!({ "officialCode": official.code, "fullName": person.full_name() });
        self.add(&format!("{service}/GetOfficial"), json!({ "citizenId": person.citizen_id }), expect);
        let one = |official: &super::province::Official| {
            let person = &self.province.people[official.person];
            json!({ "citizenId": person.citizen_id, "officialCode": official.code, "fullName": person.full_name() })
        };
        let requests: Vec<Value> = self.province.officials.iter().take(20).map(one).collect();
        self.add(&format!("{service}/SyncOfficials"), Value::Null, json!({ "accepted": 20 }));
        if let Some(last) = self.all.last_mut() {
            last.requests = requests;
        }
    }
}

/// Whether a JSON response contains everything expected.
pub fn holds(answer: &Value, expect: &Value) -> bool {
    match (answer, expect) {
        (Value::Object(answer), Value::Object(expect)) => {
            expect.iter().all(|(name, value)| answer.get(name).is_some_and(|found| holds(found, value)))
        }
        (answer, expect) => answer == expect,
    }
}
