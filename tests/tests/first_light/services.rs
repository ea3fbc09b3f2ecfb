//! Services: by name, by address, by environment, from the host; spread over their pods; without the unready ones.

use anyhow::{Context, Result, ensure};
use e2e::cluster::Cluster;
use e2e::eventually;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const APP: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: services}
---
apiVersion: v1
kind: Service
metadata: {name: echo, namespace: services}
spec:
  selector: {app: echo}
  ports: [{name: http, port: 80, targetPort: 8080}, {name: udp, port: 80, protocol: UDP, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: echo-outside, namespace: services}
spec:
  type: NodePort
  selector: {app: echo}
  ports: [{port: 80, targetPort: 8080, nodePort: 30081}]
---
apiVersion: v1
kind: Service
metadata: {name: echo-pods, namespace: services}
spec:
  clusterIP: None
  selector: {app: echo}
  ports: [{name: http, port: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: elsewhere, namespace: services}
spec: {type: ExternalName, externalName: echo.services.svc.cluster.local}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: echo, namespace: services}
spec:
  replicas: 4
  selector: {matchLabels: {app: echo}}
  template:
    metadata: {labels: {app: echo}}
    spec:
      terminationGracePeriodSeconds: 3
      containers:
        - name: server
          image: timonel.dev/testserver:1
          ports: [{containerPort: 8080}]
          readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1, failureThreshold: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: services}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: client, image: "timonel.dev/testserver:1", args: ["9090"]}]
"#;

fn inside(cluster: &Cluster, script: &str) -> Result<String> {
    cluster.kubectl(&["-n", "services", "exec", "client", "--", "sh", "-c", script])
}

pub fn answer(cluster: &Cluster) -> Result<()> {
    cluster.apply(APP)?;
    cluster.kubectl(&["-n", "services", "rollout", "status", "deployment/echo", "--timeout=90s"])?;
    cluster.kubectl(&["-n", "services", "wait", "pod/client", "--for=condition=Ready", "--timeout=60s"])?;
    let ip = cluster.field(&["-n", "services", "service", "echo"], ".spec.clusterIP")?;
    for url in ["echo", "echo.services", "echo.services.svc.cluster.local", "elsewhere", ip.as_str()] {
        let name = eventually(10, || inside(cluster, &format!("wget -qO- http://{url}/")))
            .with_context(|| url.to_string())?;
        ensure!(name.starts_with("echo-"), "{url} answered {name:?}");
    }
    let variables = inside(cluster, "echo $ECHO_SERVICE_HOST:$ECHO_SERVICE_PORT")?;
    ensure!(variables.trim() == format!("{ip}:80"), "the environment says {variables:?}");
    let pods = eventually(10, || {
        let found = inside(
            cluster,
            "nslookup echo-pods.services.svc.cluster.local | grep -c 'Address.*10\\.244\\.'",
        )?;
        ensure!(found.trim() == "4", "the headless name has {found} addresses");
        Ok(found)
    });
    pods?;
    let outside = eventually(10, || get(&format!("{}:30081", node_ip(cluster)?), "/"))?;
    ensure!(outside.starts_with("echo-"), "the node port answered {outside:?}");
    let api = inside(cluster, "nslookup kubernetes.default.svc.cluster.local")?;
    ensure!(api.contains("10.96.0.1"), "the API's own name: {api}");
    Ok(())
}

fn node_ip(cluster: &Cluster) -> Result<String> {
    cluster.field(&["nodes"], ".items[0].status.addresses[?(@.type=='InternalIP')].address")
}

/// A GET over a fresh connection.
pub fn get(host: &str, path: &str) -> Result<String> {
    use std::io::{Read, Write};
    let address = host.parse().with_context(|| format!("{host} is no address"))?;
    let mut stream = std::net::TcpStream::connect_timeout(&address, Duration::from_secs(3))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    ensure!(text.starts_with("HTTP/1.1 200"), "{path} answered {text:?}");
    Ok(text.split_once("\r\n\r\n").map(|(_, body)| body.to_string()).unwrap_or_default())
}

pub fn spread(cluster: &Cluster) -> Result<()> {
    let host = format!("{}:80", cluster.field(&["-n", "services", "service", "echo"], ".spec.clusterIP")?);
    let mut hits: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..1000 {
        *hits.entry(get(&host, "/")?).or_default() += 1;
    }
    ensure!(hits.len() == 4, "only some pods were reached: {hits:?}");
    // Five standard deviations of a fair choice among four.
    ensure!(hits.values().all(|count| count.abs_diff(250) < 70), "connections are spread unevenly: {hits:?}");
    Ok(())
}

pub fn unready(cluster: &Cluster) -> Result<()> {
    let host = format!("{}:80", cluster.field(&["-n", "services", "service", "echo"], ".spec.clusterIP")?);
    let victim = cluster.field(&["-n", "services", "pods", "-l", "app=echo"], ".items[0].metadata.name")?;
    cluster.kubectl(&["-n", "services", "exec", &victim, "--", "touch", "/tmp/unhealthy"])?;
    cluster.kubectl(&[
        "-n",
        "services",
        "wait",
        "pod",
        &victim,
        "--for=condition=Ready=false",
        "--timeout=20s",
    ])?;
    let seen_unready = Instant::now();
    // The rotation follows the condition, in milliseconds where the disk does not stall: out is whom three seconds of
    // connections do not reach.
    let (mut last, mut asked) = (Duration::ZERO, 0);
    while seen_unready.elapsed() < last + Duration::from_secs(3) {
        if get(&host, "/")?.trim() == victim {
            last = seen_unready.elapsed();
        }
        asked += 1;
        ensure!(last < Duration::from_secs(30), "an unready pod stays in rotation");
    }
    ensure!(asked > 100, "only {asked} connections were made");
    eprintln!("        an unready pod was last reached {} ms after its condition", last.as_millis());
    cluster.kubectl(&["-n", "services", "exec", &victim, "--", "rm", "/tmp/unhealthy"])?;
    cluster.kubectl(&["-n", "services", "wait", "pod", &victim, "--for=condition=Ready", "--timeout=20s"])?;
    eventually(20, || {
        ensure!(get(&host, "/")?.trim() == victim, "a pod that is ready again is not reached");
        Ok(())
    })
}
