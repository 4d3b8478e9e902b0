//! The promise itself: an exchange with a response survives `kill -9`, a hundred times under load.

use crate::support::{Outside, PROCEDURE, Running, UNIT};
use ndxp_gateway::config::Config;
use ndxp_gateway::exchange_log::{Kind, verify};
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tonic::Code;

const KILLS: usize = 100;

#[test]
fn an_answered_exchange_survives_kill_nine_a_hundred_times() {
    let outside = Outside::new();
    let Outside { folder, config, .. } = &outside;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();

    // Every response that a caller received: exchange id and success.
    let answered: Arc<Mutex<HashMap<String, bool>>> = Arc::default();
    let mut seen = 0;
    for round in 0..KILLS {
        let gateway = Running::start(folder, &[]);
        let callers: Vec<_> = (0..6)
            .map(|number| {
                let actor = outside.actor();
                let answered = answered.clone();
                runtime.spawn(async move {
                    let (path, request) = match number % 3 {
                        0 => (PROCEDURE, json!({ "procedureCode": "1.004222" })),
                        1 => (UNIT, json!({ "unitCode": "1057000" })),
                        // A refusal is an exchange too.
                        _ => (UNIT, json!({ "unitCode": "x" })),
                    };
                    let message = actor.encode(path, &request);
                    while let Ok(told) = actor.raw(path, &[], vec![message.clone()]).await {
                        let id = told.exchange();
                        if !id.is_empty() {
                            answered.lock().unwrap().insert(id, told.code() == Code::Ok);
                        }
                    }
                })
            })
            .collect();
        // At any point: during the start, in the middle of a batch or of a sealing.
        let before = answered.lock().unwrap().len();
        let answers = |number: usize| {
            let end = Instant::now() + Duration::from_secs(10);
            while answered.lock().unwrap().len() < before + number && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        match round % 5 {
            0 => std::thread::sleep(Duration::from_millis(10 + (round as u64 * 37) % 110)),
            1 => {
                answers(1);
                std::thread::sleep(Duration::from_millis(330 + (round as u64 * 37) % 140));
            }
            _ => answers(1 + (round * 7) % 60),
        }
        gateway.kill();
        runtime.block_on(async {
            for caller in callers {
                caller.await.unwrap();
            }
        });
        let report = verify::verify_data(&config.data, None, None, Default::default(), |_, _| {})
            .unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert!(report.sealed + report.tail >= seen, "round {round}: the log became shorter");
        seen = report.sealed + report.tail;
        // All at the end, the last rounds' each time: reading the complete log a hundred times would take too long.
        if round % 10 == 9 {
            every_answer_is_there(config, &answered.lock().unwrap());
        }
    }
    let answered = answered.lock().unwrap();
    assert!(answered.len() > 10 * KILLS, "only {} answers: no load to speak of", answered.len());
    let last = Running::start(folder, &[]);
    drop(last);
    every_answer_is_there(config, &answered);
}

fn every_answer_is_there(config: &Config, answered: &HashMap<String, bool>) {
    let entries = crate::support::entries(&config.data);
    let logged: HashMap<String, bool> = entries
        .iter()
        .filter(|one| one.entry.kind() == Kind::Exchange)
        .map(|one| (one.entry.id_text(), one.entry.status == 0))
        .collect();
    for (id, ok) in answered {
        assert_eq!(logged.get(id), Some(ok), "the answered exchange {id} is not in the log as it was answered");
    }
}
