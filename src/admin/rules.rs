//! The role that each method requires: checked before its message is read, so that only callers with the role send one.

use crate::access::rules::rules;
use crate::access::staff::RoleRule;
use crate::registry::Role;

/// Roles that may read.
const ANY: &[Role] = &[Role::Administrator, Role::Approver, Role::Auditor, Role::Operator];
const ADMINISTRATOR: &[Role] = &[Role::Administrator];
const APPROVER: &[Role] = &[Role::Approver];
const EITHER: &[Role] = &[Role::Administrator, Role::Approver];
/// Roles that see how the gateways and their etcd do.
const RUNNING: &[Role] = &[Role::Administrator, Role::Auditor, Role::Operator];
/// Roles that may revoke in an emergency, and look after sources.
const EMERGENCY: &[Role] = &[Role::Administrator, Role::Operator];

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
    GET_OVERVIEW: "GetOverview", "gateway.show", ANY;
    GET_CLUSTER: "GetCluster", "cluster.show", RUNNING;
    CHECK_SOURCE: "CheckSource", "source.check", EMERGENCY;
    SET_NOTICE: "SetNotice", "notice.set", EMERGENCY;
    CLEAR_NOTICE: "ClearNotice", "notice.clear", EMERGENCY;
    LIST_NOTICES: "ListNotices", "notice.list", ANY;
    LIST_LAST_USE: "ListLastUse", "use.list", ANY;
    PREVIEW_GRANT_CHANGE: "PreviewGrantChange", "grant.preview", ADMINISTRATOR;
    LIST_DRIFT: "ListDrift", "drift.list", ANY;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d1_every_method_has_one_rule() {
        crate::access::rules::assert_complete("ndxp.admin.v1.AdminService", ALL);
        assert!(of("AddClient").is_some_and(|rule| rule.roles == ADMINISTRATOR) && of("Nothing").is_none());
    }
}
