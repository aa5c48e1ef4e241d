//! Pods and Services, reached through the API server by whoever is not in the cluster's network.

use std::collections::BTreeMap;
use std::net::IpAddr;

use http::{Request, Response, Uri};
use hyper::body::Bytes;
use kube::Client;
use kube::client::Body;

/// The way through the API server's proxy, with the rights of the client's user: `get` on `pods/proxy`, and `create`
/// on `services/proxy` for a server that is asked by POST.
#[derive(Clone)]
pub struct Through {
    client: Client,
    /// Namespace and name by address.
    pods: BTreeMap<IpAddr, (String, String)>,
}

impl std::fmt::Debug for Through {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Through").field("pods", &self.pods).finish_non_exhaustive()
    }
}

impl Through {
    /// To these pods, by their addresses, and to any Service.
    pub fn new(client: Client, pods: BTreeMap<IpAddr, (String, String)>) -> Self {
        Self { client, pods }
    }

    /// The path at the API server that leads to `uri`; nothing when that is neither a known pod nor a Service.
    pub(super) fn path(&self, uri: &Uri) -> Option<String> {
        let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
        let secure = uri.scheme_str() == Some("https");
        let (namespace, kind, name) = if let Ok(ip) = host.parse::<IpAddr>() {
            let (namespace, name) = self.pods.get(&ip)?;
            (namespace.as_str(), "pods", name.as_str())
        } else {
            let mut parts = host.split('.');
            let (name, namespace) = (parts.next()?, parts.next()?);
            // `web.shop` and `web.shop.svc…` are Services; `metrics.example.com` is not.
            if parts.next().is_some_and(|third| third != "svc") {
                return None;
            }
            (namespace, "services", name)
        };
        let scheme = if secure { "https:" } else { "" };
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Some(format!("/api/v1/namespaces/{namespace}/{kind}/{scheme}{name}:{port}/proxy{path}"))
    }

    pub(super) async fn send(&self, request: Request<Bytes>) -> kube::Result<Response<Body>> {
        self.client.send(request.map(Body::from)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pods_and_services_have_a_path_and_others_have_none() {
        let client = Client::try_from(kube::Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap();
        let pods =
            ["10.0.0.5", "fd00::5"].map(|ip| (ip.parse().unwrap(), ("shop".to_owned(), "web-1".to_owned())));
        let through = Through::new(client, pods.into());
        let path = |uri: &str| through.path(&uri.parse().unwrap());
        let pod = "/api/v1/namespaces/shop/pods/";
        assert_eq!(
            path("http://10.0.0.5:8080/metrics?x=1"),
            Some(format!("{pod}web-1:8080/proxy/metrics?x=1"))
        );
        assert_eq!(
            path("https://[fd00::5]:8443/metrics"),
            Some(format!("{pod}https:web-1:8443/proxy/metrics"))
        );
        let service = "/api/v1/namespaces/monitoring/services/prometheus:9090/proxy/api/v1/query";
        for host in
            ["prometheus.monitoring", "prometheus.monitoring.svc", "prometheus.monitoring.svc.cluster.local"]
        {
            assert_eq!(path(&format!("http://{host}:9090/api/v1/query")).as_deref(), Some(service), "{host}");
        }
        for elsewhere in
            ["http://10.0.0.6:8080/metrics", "https://metrics.example.com/api", "http://localhost:9090/"]
        {
            assert_eq!(path(elsewhere), None, "{elsewhere}");
        }
    }
}
