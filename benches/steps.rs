//! The cost of the steps of one exchange: token check (cached and not), contract (decode, check, map in both directions) for
//! a REST and a SOAP operation, granted fields, log append. `cargo bench`; figures in docs/performance.md.
#![allow(clippy::unwrap_used, missing_docs)]

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ndxp_gateway::access::token::TokenChecker;
use ndxp_gateway::config::Config;
use ndxp_gateway::contract::fields::{Disclosed, keep};
use ndxp_gateway::contract::map::request::{self, Layout};
use ndxp_gateway::contract::map::{date, response, response_start};
use ndxp_gateway::contract::notes::Notes;
use ndxp_gateway::contract::settings::{CallContext, Settings};
use ndxp_gateway::contract::{ContractSet, Operation, validate, xml};
use ndxp_gateway::exchange_log::checkpoint::LogSigner;
use ndxp_gateway::exchange_log::{Entry, ExchangeLog, Kind};
use ndxp_gateway::identity::{Certificate, Peer};
use ndxp_gateway::issuer::{IssueRequest, Issuer, KeyAlgorithm};
use ndxp_gateway::pki::{CertificateRole, client_uri};
use ndxp_gateway::registry::sqlite::SqliteStore;
use ndxp_gateway::registry::{Client, Grant, Snapshot, Store, now};
use ndxp_gateway::sandbox::Province;
use ndxp_gateway::sandbox::folder::DevFolder;
use ndxp_gateway::sandbox::samples::samples;
use prost::Message;
use prost_reflect::DynamicMessage;
use serde_json::json;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn operation(name: &str) -> Arc<Operation> {
    ContractSet::embedded().unwrap().operation(&format!("/ndxp.{name}")).unwrap().clone()
}

fn sample(operation: &Operation) -> Bytes {
    let samples = samples(&Province::new(22, 2_000));
    let found = samples.into_iter().find(|one| one.operation == operation.full_name).unwrap();
    DynamicMessage::deserialize(operation.request.message.clone(), &found.requests[0]).unwrap().encode_to_vec().into()
}

fn token(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let folder = DevFolder::with_free_ports(&dir.path().join("dev")).unwrap();
    let config = Config::load(&folder.gateway_config()).unwrap_or_else(|faults| panic!("{faults:?}"));
    let (file, _) = folder.pki().issue("shop", &CertificateRole::Client("shop".into()), 30).unwrap();
    let certificate = Certificate::of(&ndxp_gateway::identity::tls::certificates(&file).unwrap()).unwrap();
    assert_eq!(certificate.names, [client_uri("shop")]);
    let peer = Peer { certificate: Arc::new(certificate), address: "127.0.0.1:1".parse().unwrap() };
    let store = SqliteStore::open(&dir.path().join("registry.sqlite")).unwrap();
    let client = Client {
        id: "shop".into(),
        agency: "H49.12".into(),
        contact: String::new(),
        names: vec![client_uri("shop")],
        ..Client::default()
    };
    store.add_client(&client).unwrap();
    let grant = Grant {
        id: "g".into(),
        client: "shop".into(),
        scopes: vec!["population:read".into()],
        purposes: vec!["*".into()],
        fields: vec!["*".into()],
        rate: 1,
        burst: 1,
        daily_quota: 0,
        not_before: 0,
        not_after: i64::MAX,
        legal_basis: String::new(),
        ..Grant::default()
    };
    store.add_grant(&grant).unwrap();
    let issuer = Issuer::new(&store, config.issuer_settings());
    issuer.rotate(KeyAlgorithm::Es256).unwrap();
    let snapshot = Snapshot::read(&store).unwrap();
    let request = IssueRequest {
        scopes: vec![],
        certificate: peer.certificate.thumbprint,
        lifetime: Duration::from_secs(3_600),
        starts_in: Duration::ZERO,
    };
    let (token, _) = issuer.issue(snapshot.client("shop").unwrap(), request).unwrap();
    let mut headers = http::HeaderMap::new();
    headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
    let view = peer.identify(&snapshot).unwrap();
    let kept = TokenChecker::new(&config.tokens.issuer, &config.tokens.audience, 30);
    let mut group = criterion.benchmark_group("token");
    group.bench_function("kept", |bench| {
        bench.iter(|| kept.authenticate(black_box(&headers), &peer, &view, &snapshot, now()).unwrap());
    });
    group.bench_function("not kept", |bench| {
        bench.iter_batched(
            || TokenChecker::new(&config.tokens.issuer, &config.tokens.audience, 30),
            |fresh| fresh.authenticate(black_box(&headers), &peer, &view, &snapshot, now()).unwrap(),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn contract(criterion: &mut Criterion) {
    let context = CallContext {
        official: Some("022080990129".into()),
        agency: "H49.12".into(),
        purpose: Some("1.004222".into()),
        exchange_id: "01a21081-fbac-73f2-b933-ebdca9ae0778".into(),
        traceparent: None,
        ..CallContext::default()
    };
    let settings: Settings = [("account".to_owned(), "A".to_owned()), ("phone".to_owned(), "02033".to_owned())].into();
    let mut group = criterion.benchmark_group("contract");
    for (title, name) in [
        ("REST request", "business.v1.BusinessService/GetEnterprise"),
        ("SOAP request", "population.v1.PopulationService/GetCitizen"),
    ] {
        let operation = operation(name);
        let bytes = sample(&operation);
        group.bench_function(title, |bench| {
            bench.iter(|| {
                let message =
                    DynamicMessage::decode(operation.request.message.clone(), black_box(&bytes).clone()).unwrap();
                assert!(validate::check(&operation.request, &message).is_empty());
                request::write(&operation, &message, Layout::default(), &context, &settings).unwrap()
            });
        });
    }
    let citizen = operation("population.v1.PopulationService/GetCitizen");
    let name = json!({ "Ho": "Nguyễn", "ChuDem": "Văn", "Ten": "An" });
    let address =
        json!({ "MaTinhThanh": "22", "MaQuanHuyen": "193", "MaPhuongXa": "06673", "ChiTiet": "Số 1", "QuocGia": "VN" });
    let record = json!({
        "CongdanCollection": { "CongDan": {
            "SoDinhDanh": "022080000123", "HoVaTen": name, "GioiTinh": "1", "DanToc": "01", "TonGiao": "00",
            "NgayThangNamSinh": { "Nam": "1980", "NgayThangNam": "19800516" }, "NoiDangKyKhaiSinh": address.clone(),
            "QueQuan": address.clone(), "ThuongTru": address.clone(), "NoiOHienTai": address,
            "Cha": { "HoVaTen": name, "SoDinhDanh": "022055000123" }, "SoSoHoKhau": "220001000",
        } },
    });
    let mut document = String::new();
    xml::write_root(&mut document, "TraCuuThongTinCongDanResponse", Some("http://www.mic.gov.vn/dancu/1.0"), &record);
    let read = |text: &str| -> Bytes {
        let value = xml::parse(text.as_bytes()).unwrap().into_value();
        let response_start::Start::At(place) = response_start::start(&value, &citizen.response_root) else {
            panic!("no record")
        };
        response::read(&citizen.response, place, &value).unwrap().into()
    };
    let value = xml::parse(document.as_bytes()).unwrap().into_value();
    group.bench_function("SOAP response, compared with its shape", |bench| {
        bench.iter(|| {
            let mut notes = Notes::default();
            citizen.response_shape.document.observe(black_box(&value), &String::new, &mut notes);
            notes
        });
    });
    group.bench_function("SOAP response (parse, map, encode)", |bench| bench.iter(|| read(black_box(&document))));
    let bytes = read(&document);
    for (title, fields) in
        [("fields, all granted", vec!["*"]), ("fields, three granted", vec!["citizen_id", "name", "birth_date"])]
    {
        let mask = citizen.response_fields.mask(&fields);
        group.bench_function(title, |bench| {
            bench
                .iter(|| keep(&citizen.response_fields, &mask, black_box(&bytes), &mut Disclosed::up_to(100)).unwrap());
        });
    }
    group.bench_function("date", |bench| {
        let notation = date::Notation::parse("yyyyMMdd").unwrap();
        bench.iter(|| notation.read(black_box("19800516")).unwrap());
    });
    group.finish();
}

fn log(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let signer = LogSigner::from_pkcs8("bench.example/log", &LogSigner::generate().unwrap()).unwrap();
    let log = ExchangeLog::open(dir.path(), signer).unwrap();
    let entry = Entry {
        version: 1,
        kind: Kind::Exchange as i32,
        exchange_id: vec![7; 16],
        time_us: 1_795_539_590_000_000,
        node: "qn-dc1".into(),
        client: "one-stop-shop".into(),
        agency: "H49.12".into(),
        certificate: vec![1; 32],
        token: "01a21081-fbac-73f2-b933-ebdca9ae0778".into(),
        peer: "10.20.30.40:51234".into(),
        source: "population".into(),
        operation: "ndxp.population.v1.PopulationService/GetCitizen".into(),
        scope: "population:read".into(),
        purpose: "H49.12-261125-0001".into(),
        fields: (0..20).map(|field| format!("some.field.{field}")).collect(),
        request_commitment: vec![2; 32],
        response_commitment: vec![3; 32],
        ..Entry::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut group = criterion.benchmark_group("exchange log");
    group.sample_size(20).measurement_time(Duration::from_secs(8));
    for appenders in [1usize, 256] {
        group.throughput(Throughput::Elements(appenders as u64));
        group.bench_function(format!("append, {appenders} at once, each durable"), |bench| {
            bench.iter_custom(|rounds| {
                let began = Instant::now();
                runtime.block_on(async {
                    let one = |_| async {
                        for _ in 0..rounds {
                            log.append(&entry).await.unwrap();
                        }
                    };
                    futures_util::future::join_all((0..appenders).map(one)).await;
                });
                began.elapsed()
            });
        });
    }
    group.finish();
}

criterion_group!(steps, token, contract, log);
criterion_main!(steps);
