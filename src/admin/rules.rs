//! What each method needs: known before its message is read, so that nobody sends one who may not.

use crate::access::staff::Rule;
use crate::registry::Role;

/// Everybody who may read.
const ANY: &[Role] = &[Role::Administrator, Role::Approver, Role::Auditor, Role::Operator];
const ADMINISTRATOR: &[Role] = &[Role::Administrator];
const APPROVER: &[Role] = &[Role::Approver];
const EITHER: &[Role] = &[Role::Administrator, Role::Approver];
/// Who may take away in an emergency.
const EMERGENCY: &[Role] = &[Role::Administrator, Role::Operator];

macro_rules! rules {
    ($($name:ident: $method:literal, $act:literal, $roles:ident;)*) => {
        $(pub(super) const $name: Rule = Rule { method: $method, act: $act, roles: $roles };)*

        /// Every method's.
        const ALL: &[Rule] = &[$($name,)*];
    };
}

rules! {
    ADD_CLIENT: "AddClient", "client.add", ADMINISTRATOR;
    CHANGE_CLIENT: "ChangeClient", "client.change", ADMINISTRATOR;
    SUSPEND_CLIENT: "SuspendClient", "client.suspend", EMERGENCY;
    RESUME_CLIENT: "ResumeClient", "client.resume", ADMINISTRATOR;
    RETIRE_CLIENT: "RetireClient", "client.retire", ADMINISTRATOR;
    GET_CLIENT: "GetClient", "client.show", ANY;
    LIST_CLIENTS: "ListClients", "client.list", ANY;
    ADD_GRANT: "AddGrant", "grant.add", ADMINISTRATOR;
    CHANGE_GRANT: "ChangeGrant", "grant.change", ADMINISTRATOR;
    APPROVE_GRANT: "ApproveGrant", "grant.approve", APPROVER;
    WITHDRAW_GRANT: "WithdrawGrant", "grant.withdraw", EITHER;
    GET_GRANT: "GetGrant", "grant.show", ANY;
    LIST_GRANTS: "ListGrants", "grant.list", ANY;
    ISSUE_TOKEN: "IssueToken", "token.issue", ADMINISTRATOR;
    REVOKE_TOKEN: "RevokeToken", "token.revoke", EMERGENCY;
    REVOKE_CLIENT_TOKENS: "RevokeClientTokens", "token.revoke", EMERGENCY;
    GET_TOKEN: "GetToken", "token.show", ANY;
    LIST_TOKENS: "ListTokens", "token.list", ANY;
    ROTATE_KEY: "RotateKey", "key.rotate", ADMINISTRATOR;
    RETIRE_KEY: "RetireKey", "key.retire", ADMINISTRATOR;
    LIST_KEYS: "ListKeys", "key.list", ANY;
    ADD_STAFF: "AddStaff", "staff.add", ADMINISTRATOR;
    CHANGE_STAFF: "ChangeStaff", "staff.change", ADMINISTRATOR;
    LIST_PENDING_CHANGES: "ListPendingChanges", "change.list", ANY;
    APPROVE_CHANGE: "ApproveChange", "change.approve", APPROVER;
    REJECT_CHANGE: "RejectChange", "change.reject", EITHER;
    REMOVE_STAFF: "RemoveStaff", "staff.remove", ADMINISTRATOR;
    CAN_I: "CanI", "client.can", ANY;
    LIST_STAFF: "ListStaff", "staff.list", ANY;
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
        let service = pool.get_service_by_name("ndxp.admin.v1.AdminService").unwrap();
        let mut methods: Vec<_> = service.methods().map(|method| method.name().to_owned()).collect();
        let mut ruled: Vec<_> = ALL.iter().map(|rule| rule.method.to_owned()).collect();
        methods.sort();
        ruled.sort();
        assert_eq!(ruled, methods);
        assert!(of("AddClient").is_some_and(|rule| rule.roles == ADMINISTRATOR) && of("Nothing").is_none());
    }
}
