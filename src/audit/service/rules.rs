//! The role that each method requires: checked before its message is read, so that only callers with the role send one.

use crate::access::rules::rules;
use crate::access::staff::RoleRule;
use crate::registry::Role;

const AUDITOR: &[Role] = &[Role::Auditor];
/// Of methods that are for clients about themselves.
const NOBODY: &[Role] = &[];

rules! {
    SEARCH: "Search", "audit.search", AUDITOR;
    GET: "Get", "audit.get", AUDITOR;
    TAIL: "Tail", "audit.tail", AUDITOR;
    STATISTICS: "Statistics", "audit.statistics", AUDITOR;
    COUNT_EXCHANGES: "CountExchanges", "audit.count", AUDITOR;
    LIST_FINDINGS: "ListFindings", "audit.findings", AUDITOR;
    REVIEW_FINDING: "ReviewFinding", "audit.review", AUDITOR;
    GET_CHECKPOINT: "GetCheckpoint", "audit.checkpoint", AUDITOR;
    GET_RECEIPT: "GetReceipt", "audit.receipt", AUDITOR;
    GET_OWN_USE: "GetOwnUse", "audit.own_use", NOBODY;
    PROVE_CONSISTENCY: "ProveConsistency", "audit.consistency", AUDITOR;
    EXPORT: "Export", "audit.export", AUDITOR;
    START_EXPORT: "StartExport", "audit.start_export", AUDITOR;
    LIST_EXPORTS: "ListExports", "audit.list_exports", AUDITOR;
    DOWNLOAD_EXPORT: "DownloadExport", "audit.download_export", AUDITOR;
    REMOVE_EXPORT: "RemoveExport", "audit.remove_export", AUDITOR;
    GET_STATUS: "GetStatus", "audit.status", AUDITOR;
    VERIFY_INDEX: "VerifyIndex", "audit.verify_index", AUDITOR;
    ACKNOWLEDGE_ALARM: "AcknowledgeAlarm", "audit.acknowledge", AUDITOR;
    LIST_HOLDS: "ListHolds", "audit.holds", AUDITOR;
    PLACE_HOLD: "PlaceHold", "log.hold", AUDITOR;
    RELEASE_HOLD: "ReleaseHold", "log.release", AUDITOR;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d1_every_method_has_one_rule() {
        crate::access::rules::assert_complete("ndxp.audit.v1.AuditService", ALL);
        assert!(of("Get").is_some_and(|rule| rule.event == "audit.get") && of("get").is_none());
    }
}
