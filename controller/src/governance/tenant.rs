//! Of which tenant an identity is: what is normal in one says nothing for another, even where they share an intent.

/// The trust domain and namespace of a SPIFFE ID or a pattern of them: `acme.example/ns/shop`, as far as the path begins with `/ns/NAME`.
pub fn tenant(uri: &str) -> &str {
    let rest = uri.strip_prefix("spiffe://").unwrap_or(uri);
    let (domain, path) = rest.split_once('/').unwrap_or((rest, ""));
    let namespace = path.strip_prefix("ns/").map(|path| path.split('/').next().unwrap_or_default());
    match namespace {
        Some(name) if !name.is_empty() => &rest[..domain.len() + "/ns/".len() + name.len()],
        _ => domain,
    }
}

#[cfg(test)]
mod tests {
    use super::tenant;

    #[test]
    fn a_tenant_is_a_trust_domain_and_a_namespace_where_there_is_one() {
        for (uri, of) in [
            ("spiffe://acme.example/ns/shop/sa/web", "acme.example/ns/shop"),
            ("spiffe://acme.example/ns/shop", "acme.example/ns/shop"),
            ("spiffe://acme.example/ns/*", "acme.example/ns/*"),
            ("spiffe://acme.example/nsa/shop", "acme.example"),
            ("spiffe://acme.example/web", "acme.example"),
            ("spiffe://acme.example", "acme.example"),
        ] {
            assert_eq!(tenant(uri), of);
        }
    }
}
