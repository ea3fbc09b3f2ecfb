//! `$(NAME)` in commands, arguments and values, and the variables that announce services.

use api::core::v1::Service;
use std::collections::BTreeMap;

/// Replaces `$(NAME)` by what `lookup` gives; unknown names stay as they are, `$$` is one dollar.
pub fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let tail = &rest[at + 1..];
        rest = match tail.as_bytes().first() {
            Some(b'$') => {
                out.push('$');
                &tail[1..]
            }
            Some(b'(') => match tail.find(')') {
                Some(end) => {
                    let name = &tail[1..end];
                    out.push_str(&lookup(name).unwrap_or_else(|| format!("$({name})")));
                    &tail[end + 1..]
                }
                None => {
                    out.push_str("$(");
                    &tail[1..]
                }
            },
            _ => {
                out.push('$');
                tail
            }
        };
    }
    out.push_str(rest);
    out
}

/// The variables of services, in docker's link style and `<NAME>_SERVICE_HOST`. Headless and external ones have none.
pub fn services<'a>(services: impl Iterator<Item = &'a Service>) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    for service in services {
        let host = &service.spec.cluster_ip;
        if host.is_empty() || host == "None" || service.spec.r#type == "ExternalName" {
            continue;
        }
        let prefix = upper(&service.metadata.name);
        let joined = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        out.insert(format!("{prefix}_SERVICE_HOST"), host.clone());
        for (index, port) in service.spec.ports.iter().enumerate() {
            if index == 0 {
                out.insert(format!("{prefix}_SERVICE_PORT"), port.port.to_string());
            }
            if !port.name.is_empty() {
                out.insert(format!("{prefix}_SERVICE_PORT_{}", upper(&port.name)), port.port.to_string());
            }
            let protocol = if port.protocol.is_empty() { "TCP" } else { &port.protocol };
            let url = format!("{}://{joined}:{}", protocol.to_lowercase(), port.port);
            if index == 0 {
                out.insert(format!("{prefix}_PORT"), url.clone());
            }
            let link = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_uppercase());
            out.insert(format!("{link}_PROTO"), protocol.to_lowercase());
            out.insert(format!("{link}_PORT"), port.port.to_string());
            out.insert(format!("{link}_ADDR"), host.clone());
            out.insert(link, url);
        }
    }
    out
}

fn upper(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::core::v1::{ServicePort, ServiceSpec};

    #[test]
    fn references_are_replaced_and_escapes_kept() {
        let lookup = |name: &str| (name == "A").then(|| "x".to_string());
        for (given, expected) in
            [("$(A)-$(B)", "x-$(B)"), ("$$(A)", "$(A)"), ("$A $", "$A $"), ("$(A", "$(A"), ("é$(A)é", "éxé")]
        {
            assert_eq!(expand(given, lookup), expected, "{given}");
        }
    }

    #[test]
    fn a_service_announces_itself() {
        let mut service = Service {
            spec: ServiceSpec { cluster_ip: "10.96.0.1".into(), ..Default::default() },
            ..Default::default()
        };
        service.metadata.name = "my-db".into();
        service.spec.ports = vec![ServicePort { name: "sql".into(), port: 5432, ..Default::default() }];
        let lines: Vec<String> = services([&service].into_iter())
            .into_iter()
            .map(|(name, value)| format!("{name}={value}\n"))
            .collect();
        expect_test::expect![[r#"
            MY_DB_PORT=tcp://10.96.0.1:5432
            MY_DB_PORT_5432_TCP=tcp://10.96.0.1:5432
            MY_DB_PORT_5432_TCP_ADDR=10.96.0.1
            MY_DB_PORT_5432_TCP_PORT=5432
            MY_DB_PORT_5432_TCP_PROTO=tcp
            MY_DB_SERVICE_HOST=10.96.0.1
            MY_DB_SERVICE_PORT=5432
            MY_DB_SERVICE_PORT_SQL=5432
        "#]]
        .assert_eq(&lines.concat());
    }
}
