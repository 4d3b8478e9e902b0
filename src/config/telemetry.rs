//! What the gateway tells of itself beyond metrics, as `[telemetry]` has it.

use super::Table;

/// What the gateway tells of itself beyond metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TelemetrySettings {
    /// Whether each exchange that has ended is a line on standard output.
    pub access_lines: bool,
}

pub(super) fn read(table: &Table<'_>) -> Option<TelemetrySettings> {
    Some(TelemetrySettings { access_lines: table.flag("access_lines", false) })
}
