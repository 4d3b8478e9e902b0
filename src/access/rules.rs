//! The rules of a service's methods, written as a table.

/// Makes a constant [`RoleRule`](crate::access::staff::RoleRule) for each line, `ALL` of them, and `of`, which finds one by its method.
macro_rules! rules {
    ($($name:ident: $method:literal, $event:literal, $roles:ident;)*) => {
        $(pub(super) const $name: RoleRule = RoleRule { method: $method, event: $event, roles: $roles };)*

        /// The rules of all methods.
        const ALL: &[RoleRule] = &[$($name,)*];

        /// Returns the rule of a method of the service; `None` if there is none of this name.
        pub(super) fn of(method: &str) -> Option<&'static RoleRule> {
            ALL.iter().find(|rule| rule.method == method)
        }
    };
}

pub(crate) use rules;

/// Checks that every method of a service of the protos has one rule, and that there are no other rules.
#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) fn assert_complete(service: &str, rules: &[super::staff::RoleRule]) {
    let pool = prost_reflect::DescriptorPool::decode(crate::contract::EMBEDDED).unwrap();
    let service = pool.get_service_by_name(service).unwrap();
    let mut methods: Vec<_> = service.methods().map(|method| method.name().to_owned()).collect();
    let mut ruled: Vec<_> = rules.iter().map(|rule| rule.method.to_owned()).collect();
    methods.sort();
    ruled.sort();
    assert_eq!(ruled, methods);
}
