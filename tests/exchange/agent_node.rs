//! NDOP's Agent Node by certificate alone (`seeds/hubs/ndop-agent.toml`): a source moves there by one line of its entry.

use super::source_fixtures::{fixtures, raw::Raw, raw::Wire, told};
use crate::support::{Stage, edit};
use std::path::PathBuf;

#[tokio::test(flavor = "multi_thread")]
async fn a_source_is_reached_through_an_agent_node_with_the_provinces_certificate_only() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, pki) = (listener.local_addr().unwrap(), std::sync::Mutex::new(PathBuf::new()));
    let stage = Stage::prepared(&|folder| {
        *pki.lock().unwrap() = folder.path.join("pki");
        let hub = include_str!("../../seeds/hubs/ndop-agent.toml").replace("127.0.0.1:9504", &address.to_string());
        std::fs::write(folder.path.join("hubs/ndop-agent.toml"), hub).unwrap();
        edit(&folder.path.join("sources/insurance.toml"), |text| {
            text.replace("hub = \"ndxp\"", "hub = \"ndop-agent\"")
        });
    });
    let raw = Raw::demanding(listener, &pki.into_inner().unwrap());
    let actor = stage.system("one-stop-shop");
    let fixture = fixtures("insurance").into_iter().find(|one| one.name == "01-person-full-date").unwrap();
    raw.set(Wire::of(&fixture.expect["http"], &fixture.body));
    let answered = told(&actor, &fixture).await.unwrap().ok();
    assert_eq!(answered.messages[0]["fullName"], "Mạc Thị Thu Huyền");
    let heard = raw.heard().unwrap();
    let credentials = ["authorization", "apikey", "x-api-key", "x-road-client"];
    let sent = heard.headers.iter().find(|(name, _)| credentials.contains(&name.to_ascii_lowercase().as_str()));
    assert!(sent.is_none(), "{sent:?}");
    assert_eq!(stage.entry(&answered.exchange()).entry.hub, "ndop-agent");
    // Without its certificate, the province is not authenticated there.
    raw.set(Wire::of(&fixture.expect["http"], &fixture.body));
    edit(&stage.folder.path.join("hubs/ndop-agent.toml"), |text| {
        text.lines().filter(|line| !line.contains("to-sources")).collect::<Vec<_>>().join("\n")
    });
    stage.gateway.as_ref().unwrap().reload().unwrap();
    assert_eq!(told(&actor, &fixture).await.unwrap().reason(), "SOURCE_UNAVAILABLE");
    assert!(raw.heard().is_none(), "nothing was said to it");
    stage.verify();
}
