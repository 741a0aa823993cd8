//! The admin port, as a browser, a load balancer and Prometheus see it.

mod harness;

use harness::{Options, Server, Value, installed};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Status line and body.
fn get(address: SocketAddr, path: &str) -> std::io::Result<(String, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    // Prometheus sends long answers in chunks; only their lengths and line ends are too much.
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    Ok((
        head.lines().next().unwrap_or("").to_owned(),
        if chunked { unchunked(body) } else { body.to_owned() },
    ))
}

fn unchunked(mut body: &str) -> String {
    let mut text = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length.trim(), 16).unwrap_or(0);
        if length == 0 {
            break;
        }
        text.push_str(&rest[..length]);
        body = &rest[length + 2..];
    }
    text
}

fn page(server: &Server, path: &str) -> (String, String) {
    get(server.admin_address(), path).expect("the admin port answers")
}

fn sample(text: &str, name: &str) -> f64 {
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} in {text}"));
    line.rsplit_once(' ').and_then(|(_, value)| value.parse().ok()).expect("a number")
}

#[test]
fn the_pages_tell_what_the_server_does() {
    for shards in [1, 4] {
        let mut server = Server::start(Options::shards(shards));
        let mut client = server.client();
        client.ask("CONFIG RESETSTAT");
        for n in 0..100 {
            assert_eq!(client.ask(&format!("SET key:{n} value")), Value::ok());
        }
        client.ask("GET key:1");
        client.ask("INCR key:1");
        assert_eq!(page(&server, "/healthz"), ("HTTP/1.1 200 OK".into(), "ok\n".into()));
        assert_eq!(page(&server, "/readyz"), ("HTTP/1.1 200 OK".into(), "ready\n".into()));
        assert!(page(&server, "/nothing").0.contains("404"));
        let (status, text) = page(&server, "/metrics");
        assert!(status.contains("200"));
        let sum = |name: &str| -> f64 {
            text.lines()
                .filter(|line| line.starts_with(name))
                .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
                .sum()
        };
        let of_command = |name: &str, command: &str| -> f64 {
            let wanted = format!("command=\"{command}\"}}");
            text.lines()
                .filter(|line| line.starts_with(name) && line.contains(&wanted))
                .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
                .sum()
        };
        assert_eq!(of_command("haypile_command_seconds_count", "set"), 100.0);
        assert_eq!(of_command("haypile_command_failed_total", "incr"), 1.0);
        assert_eq!(sum("haypile_log_frames_total{"), 100.0);
        assert!(sum("haypile_log_written_lsn{") >= 100.0 && sum("haypile_input_bytes_total{") > 0.0);
        assert_eq!(sum("haypile_connections{"), 1.0);
        assert!(sample(&text, "process_resident_memory_bytes") > 1e6);
        assert!(text.contains("haypile_thread_cpu_seconds_total{kind=\"core\"}"), "{text}");
        assert!(
            text.contains("haypile_turn_stage_seconds_bucket{core=\"0\",stage=\"commit\",le=\"0.000001\"}")
        );
        assert_eq!(sum("haypile_memory_limit_bytes{"), f64::from(256 << 20), "the lines are the budget");
        if installed("promtool") {
            let mut child = Command::new("promtool")
                .args(["check", "metrics"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("it is installed");
            child.stdin.take().expect("piped").write_all(text.as_bytes()).expect("it reads");
            let done = child.wait_with_output().expect("it ends");
            let said = [done.stdout, done.stderr].concat();
            assert!(done.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
        }
        server.terminate();
    }
}

/// More connections than it takes, each with half a request, and threads that can be told apart by name.
#[test]
fn half_requests_hurt_nobody() {
    let server = Server::start(Options::shards(1));
    let idle: Vec<TcpStream> =
        (0..64).filter_map(|_| TcpStream::connect(server.admin_address()).ok()).collect();
    for mut stream in &idle {
        stream.write_all(b"GET /metr").expect("it is open");
    }
    assert_eq!(server.client().ask("PING"), Value::Simple("PONG".into()));
    drop(idle);
    let deadline = Instant::now() + Duration::from_secs(60);
    while !get(server.admin_address(), "/healthz").is_ok_and(|(status, _)| status.contains("200")) {
        assert!(Instant::now() < deadline, "its connections are free again");
        std::thread::sleep(Duration::from_millis(100));
    }
    let core = fs::read_dir(format!("/proc/{}/task", server.pid()))
        .expect("it runs")
        .flatten()
        .find(|task| fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.trim() == "core-0"))
        .expect("a core's thread has its name");
    assert!(core.path().join("stat").exists());
}

/// A program of the test's own that ends with it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().expect("it is our child");
        self.0.wait().expect("it is our child");
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port()
}

/// Every query of the dashboard, with its panel's title.
fn queries(dashboard: &serde_json::Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        let title = panel["title"].as_str().expect("a title").to_owned();
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().expect("a query").replace("$__rate_interval", "10s");
            found.push((title.clone(), query));
        }
    }
    found
}

#[test]
fn every_query_of_the_dashboard_finds_data_and_the_alerts_are_rules() {
    if !installed("prometheus") {
        println!("skipped: prometheus is not installed");
        return;
    }
    let tuning = Path::new(env!("CARGO_MANIFEST_DIR")).join("tuning");
    let alerts = tuning.join("prometheus-alerts.yml");
    let checked =
        Command::new("promtool").args(["check", "rules"]).arg(&alerts).output().expect("it comes along");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));

    let server = Server::start(Options::shards(2));
    let dir = tempfile::tempdir().expect("the temporary directory is writable");
    let config = format!(
        "global:\n  scrape_interval: 1s\n  evaluation_interval: 1s\nrule_files: [\"{}\"]\nscrape_configs:\n\
         - job_name: haypile\n  static_configs:\n  - targets: [\"{}\"]\n",
        alerts.display(),
        server.admin_address()
    );
    fs::write(dir.path().join("prometheus.yml"), config).expect("it can be written");
    let port = free_port();
    let child = Command::new("prometheus")
        .arg(format!("--config.file={}", dir.path().join("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it is installed");
    let prometheus = Running(child);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let ask = |query: &str| -> Option<serde_json::Value> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let (_, body) = get(address, &format!("/api/v1/query?query={encoded}")).ok()?;
        serde_json::from_str(&body).ok()
    };
    let text = fs::read_to_string(tuning.join("grafana-dashboard.json")).expect("it is there");
    let mut open = queries(&serde_json::from_str(&text).expect("JSON"));
    assert!(open.len() > 20);
    let mut client = server.client();
    let deadline = Instant::now() + Duration::from_secs(120);
    while !open.is_empty() {
        for n in 0..200 {
            client.ask(&format!("SET key:{n} value"));
            client.ask(&format!("GET key:{n}"));
        }
        client.ask("INCR key:1");
        open.retain(|(title, query)| {
            let answer = ask(query);
            let failed = answer.as_ref().and_then(|answer| answer["error"].as_str());
            assert!(failed.is_none(), "{title}: {query}: {failed:?}");
            answer.is_none_or(|answer| answer["data"]["result"].as_array().is_none_or(Vec::is_empty))
        });
        assert!(Instant::now() < deadline, "without data: {open:#?}");
        std::thread::sleep(Duration::from_millis(500));
    }
    let rules = get(address, "/api/v1/rules").expect("it answers").1;
    let rules: serde_json::Value = serde_json::from_str(&rules).expect("JSON");
    let states: Vec<(String, String)> = rules["data"]["groups"]
        .as_array()
        .expect("groups")
        .iter()
        .flat_map(|group| group["rules"].as_array().expect("rules").clone())
        .map(|rule| (rule["name"].to_string(), rule["health"].to_string()))
        .collect();
    assert!(states.len() >= 8 && states.iter().all(|(_, health)| !health.contains("err")), "{states:?}");
    drop(prometheus);
}
