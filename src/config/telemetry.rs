//! `[telemetry]`: what the gateway exports beyond metrics.

use super::Table;
use crate::identity::tls;
use crate::telemetry::TraceSettings;
use std::net::IpAddr;
use std::path::Path;

/// What the gateway exports beyond metrics: access lines and traces.
#[derive(Debug, Clone, Default)]
pub struct TelemetrySettings {
    /// Whether each exchange that has ended is a line on standard output.
    pub access_lines: bool,
    /// Where traces go; `None`: nowhere.
    pub traces: Option<TraceSettings>,
}

/// `client_ca`: who is believed where nothing else is said.
pub(super) fn read(table: &Table<'_>, client_ca: Option<&Path>) -> Option<TelemetrySettings> {
    let access_lines = table.flag("access_lines", false);
    let traces = if table.has("traces") {
        Some(table.section("traces", |traces| read_traces(traces, client_ca))?)
    } else {
        None
    };
    Some(TelemetrySettings { access_lines, traces })
}

fn read_traces(table: &Table<'_>, client_ca: Option<&Path>) -> Option<TraceSettings> {
    let endpoint = table.parsed("endpoint", "http://127.0.0.1:4317", endpoint);
    let sample_percent = table.number("sample_percent", 1, 0..=100) as u32;
    let own = table.path("ca");
    let ca = own.as_deref().or(client_ca)?;
    let tls = tls::client_config(ca, None, &[]).map_err(|fault| table.fault("ca", fault)).ok();
    Some(TraceSettings { endpoint: endpoint?, tls: tls?, sample_percent })
}

/// Traces name systems and operations: they leave the machine encrypted, or not at all.
fn endpoint(text: &str) -> Result<String, String> {
    let wrong =
        || Err("must be https://host:port, or http://127.0.0.1:port for a collector on this machine".to_owned());
    let Ok(uri) = text.parse::<http::Uri>() else { return wrong() };
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|host| host.is_loopback());
    let plain = uri.path() == "/" && uri.query().is_none() && uri.port().is_some();
    match uri.scheme_str() {
        Some("https") if plain => Ok(text.trim_end_matches('/').to_owned()),
        Some("http") if plain && is_here => Ok(text.trim_end_matches('/').to_owned()),
        _ => wrong(),
    }
}

#[cfg(test)]
mod tests {
    use super::endpoint;

    #[test]
    fn a_collector_elsewhere_is_reached_by_tls_alone() {
        for good in
            ["https://otel.example:4317", "http://127.0.0.1:4317/", "http://[::1]:4317", "http://localhost:4317"]
        {
            assert!(endpoint(good).is_ok(), "{good}");
        }
        for wrong in [
            "http://otel.example:4317",
            "http://10.0.0.1:4317",
            "https://otel.example:4317/v1/traces",
            "127.0.0.1:4317",
            "",
            "https://otel.example",
        ] {
            assert!(endpoint(wrong).is_err(), "{wrong}");
        }
    }
}
