//! `[telemetry]`: what the gateway exports beyond metrics.

use super::{Table, endpoint};
use crate::identity::tls;
use crate::telemetry::TraceSettings;
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
    // Traces name systems and operations.
    let endpoint = table.parsed("endpoint", "http://127.0.0.1:4317", |text| endpoint::read(text, "a collector"));
    let sample_percent = table.number("sample_percent", 1, 0..=100) as u32;
    let own = table.path("ca");
    let ca = own.as_deref().or(client_ca)?;
    let tls = tls::client_config(ca, None, &[]).map_err(|fault| table.fault("ca", fault)).ok();
    Some(TraceSettings { endpoint: endpoint?, tls: tls?, sample_percent })
}
