//! What each method needs: known before its message is read, so that nobody sends one who may not.

use crate::access::staff::Rule;
use crate::registry::Role;

macro_rules! rules {
    ($($name:ident: $method:literal, $act:literal;)*) => {
        $(pub(super) const $name: Rule = Rule { method: $method, act: $act, roles: &[Role::Auditor] };)*

        /// Every method's.
        const ALL: &[Rule] = &[$($name,)*];
    };
}

rules! {
    SEARCH: "Search", "audit.search";
    GET: "Get", "audit.get";
    TAIL: "Tail", "audit.tail";
    STATISTICS: "Statistics", "audit.statistics";
    LIST_FINDINGS: "ListFindings", "audit.findings";
    GET_CHECKPOINT: "GetCheckpoint", "audit.checkpoint";
    GET_RECEIPT: "GetReceipt", "audit.receipt";
    PROVE_CONSISTENCY: "ProveConsistency", "audit.consistency";
    EXPORT: "Export", "audit.export";
    GET_STATUS: "GetStatus", "audit.status";
    ACKNOWLEDGE_ALARM: "AcknowledgeAlarm", "audit.acknowledge";
}

/// What a method of the service needs; `None` where there is none of this name.
pub(super) fn of(method: &str) -> Option<&'static Rule> {
    ALL.iter().find(|rule| rule.method == method)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::contract::EMBEDDED;
    use prost_reflect::DescriptorPool;

    #[test]
    fn d1_every_method_has_one_rule() {
        let pool = DescriptorPool::decode(EMBEDDED).unwrap();
        let service = pool.get_service_by_name("ndxp.audit.v1.AuditService").unwrap();
        let mut methods: Vec<_> = service.methods().map(|method| method.name().to_owned()).collect();
        let mut ruled: Vec<_> = ALL.iter().map(|rule| rule.method.to_owned()).collect();
        methods.sort();
        ruled.sort();
        assert_eq!(ruled, methods);
        assert!(of("Get").is_some_and(|rule| rule.act == "audit.get") && of("get").is_none());
    }
}
