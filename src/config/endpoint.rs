//! Addresses of servers beside the gateway's machine: what goes to them leaves the machine encrypted, or not at all.

use std::net::IpAddr;

/// Checks an `https://host:port`, or an `http://host:port` of this machine, and returns it without a slash at its end.
///
/// # Errors
/// What it must be; `whose` says of whom, "a collector" for example.
pub(super) fn read(text: &str, whose: &str) -> Result<String, String> {
    let wrong =
        || Err(format!("{text:?} must be https://host:port, or http://127.0.0.1:port for {whose} on this machine"));
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
    use super::read;

    #[test]
    fn a_server_elsewhere_is_reached_by_tls_alone() {
        for good in
            ["https://otel.example:4317", "http://127.0.0.1:4317/", "http://[::1]:4317", "http://localhost:4317"]
        {
            assert!(read(good, "a collector").is_ok(), "{good}");
        }
        for wrong in [
            "http://otel.example:4317",
            "http://10.0.0.1:4317",
            "https://otel.example:4317/v1/traces",
            "127.0.0.1:4317",
            "",
            "https://otel.example",
        ] {
            assert!(read(wrong, "a collector").is_err(), "{wrong}");
        }
    }
}
