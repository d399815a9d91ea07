//! What a run tells a real Pushgateway, a real Prometheus and a `.prom` file.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::Sandbox;
use crate::support::minio::free_port;

const PATIENCE: Duration = Duration::from_secs(60);

const RULE: &str = "src: {type: file, path: in}, dest: {type: file, path: out}, if_exists: fail";

/// The program of this name. Its absence is a failure, as of all tools.
fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|place| place.join(name));
    let mut found = found.filter(|place| place.is_file());
    let missing = format!("{name} is missing; Debian's packages are prometheus{{,-pushgateway}}");
    found.next().expect(&missing)
}

/// A server of others, and its files; both are gone when it is dropped, or we are.
struct Server {
    watchdog: Child,
    url: String,
    files: tempfile::TempDir,
}

impl Server {
    /// `args` may hold `ADDRESS`; `config` is written to `config.yml` where it runs.
    fn start(name: &str, args: &[&str], config: &str) -> Self {
        const WATCHDOG: &str = r#"
            "$@" </dev/null >log 2>&1 &
            server=$!
            trap 'kill -9 $server; wait $server' EXIT
            read -r _
        "#;
        let files = tempfile::Builder::new()
            .prefix("bots-mover-metrics-")
            .tempdir()
            .unwrap();
        fs::write(files.path().join("config.yml"), config).unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "watchdog"])
            .arg(program(name))
            .args(args.iter().map(|arg| arg.replace("ADDRESS", &address)))
            .current_dir(files.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let url = format!("http://{address}");
        let server = Self {
            watchdog,
            url,
            files,
        };
        server.wait_for("/-/ready", |_| true);
        server
    }

    fn pushgateway() -> Self {
        Self::start(
            "prometheus-pushgateway",
            &["--web.listen-address=ADDRESS"],
            "",
        )
    }

    /// One that asks this Pushgateway all the time.
    fn prometheus(pushgateway: &Self) -> Self {
        let target = pushgateway.url.trim_start_matches("http://");
        let config = format!(
            "scrape_configs: [{{job_name: pushgateway, honor_labels: true, scrape_interval: 100ms, \
             scrape_timeout: 100ms, static_configs: [{{targets: ['{target}']}}]}}]"
        );
        let args = [
            "--config.file=config.yml",
            "--storage.tsdb.path=data",
            "--web.listen-address=ADDRESS",
        ];
        Self::start("prometheus", &args, &config)
    }

    fn get(&self, path: &str) -> Option<String> {
        let mut answer = ureq::get(format!("{}{path}", self.url)).call().ok()?;
        answer.body_mut().read_to_string().ok()
    }

    /// Asks until the answer is as it should be.
    fn wait_for(&self, path: &str, right: impl Fn(&str) -> bool) -> String {
        let start = Instant::now();
        loop {
            let answer = self.get(path).unwrap_or_default();
            if !answer.is_empty() && right(&answer) {
                return answer;
            }
            let log = || fs::read_to_string(self.files.path().join("log")).unwrap_or_default();
            assert!(start.elapsed() < PATIENCE, "{path}: {answer}\n{}", log());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until Prometheus has this value of the query.
    fn has(&self, query: &str, right: impl Fn(f64) -> bool) -> f64 {
        let value = |answer: &str| {
            let first = series_of(answer)?.into_iter().next()?;
            first.pointer("/value/1")?.as_str()?.parse::<f64>().ok()
        };
        let is_right = |answer: &str| value(answer).is_some_and(&right);
        let answer = self.wait_for(&path_of(query), is_right);
        value(&answer).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.watchdog.stdin.take());
        let _ = self.watchdog.wait();
    }
}

/// Where Prometheus answers this query.
fn path_of(query: &str) -> String {
    let encoded: Vec<_> = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
    format!("/api/v1/query?query={}", encoded.concat())
}

/// The series of an answer of Prometheus; `None` where it is none, or refuses the query.
fn series_of(answer: &str) -> Option<Vec<Value>> {
    let answer: Value = serde_json::from_str(answer).ok()?;
    answer.pointer("/data/result")?.as_array().cloned()
}

/// A world whose runs write here.
fn with_file() -> (Sandbox, PathBuf) {
    let sandbox = Sandbox::without_minio();
    let folder = sandbox.path("metrics");
    fs::create_dir(&folder).unwrap();
    let file = folder.join("bots-mover.prom");
    sandbox.env("BOTS_MOVER_METRICS", &file);
    (sandbox, file)
}

/// The value of the series whose name and labels contain all of these.
#[track_caller]
fn value(file: &Path, texts: &[&str]) -> f64 {
    let text = fs::read_to_string(file).unwrap();
    let is_it = |line: &&str| !line.starts_with('#') && texts.iter().all(|t| line.contains(t));
    let found: Vec<&str> = text.lines().filter(is_it).collect();
    assert_eq!(found.len(), 1, "{texts:?}: {found:?}\n{text}");
    found[0].rsplit(' ').next().unwrap().parse().unwrap()
}

#[track_caller]
fn is_exactly(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-6, "{found}, not {expected}");
}

/// An item that fails without another attempt.
fn stand_in_the_way(sandbox: &Sandbox) {
    sandbox.write("in/a.edi", "new");
    sandbox.write("out/a.edi", "old");
}

#[test]
fn prometheus_sees_a_success_a_failure_that_keeps_it_and_a_success() {
    let pushgateway = Server::pushgateway();
    let prometheus = Server::prometheus(&pushgateway);
    let sandbox = Sandbox::without_minio();
    sandbox.env("BOTS_MOVER_METRICS", &pushgateway.url);
    sandbox.env("POD_NAMESPACE", "edi\n");
    sandbox.rule("\"in/850 ü\"", RULE);
    let labels = "job=\"bots-mover\",namespace=\"edi\",rule=\"in/850 ü\"";
    let of = |metric: &str| format!("bots_mover_{metric}{{{labels}}}");
    let items = |outcome: &str| format!("bots_mover_items{{{labels},outcome=\"{outcome}\"}}");
    let is = |expected: f64| move |found: f64| (found - expected).abs() < 1e-6;
    let exit = "bots_mover_exit_code{job=\"bots-mover\",namespace=\"edi\",rule=\"\"}";

    sandbox.write("in/a.edi", "1234");
    sandbox.run().succeeds();
    prometheus.has(&of("rule_ok"), is(1.0));
    prometheus.has(&items("moved"), is(1.0));
    prometheus.has(&of("bytes"), is(4.0));
    prometheus.has(exit, is(0.0));
    prometheus.has("bots_mover_build_info", is(1.0));
    let first = prometheus.has(&of("last_success_timestamp_seconds"), |_| true);
    prometheus.has(&of("last_run_timestamp_seconds"), is(first));

    stand_in_the_way(&sandbox);
    sandbox.run().fails();
    prometheus.has(&of("rule_ok"), is(0.0));
    prometheus.has(&items("failed"), is(1.0));
    prometheus.has(&items("moved"), is(0.0));
    prometheus.has(exit, is(1.0));
    prometheus.has(&of("last_run_timestamp_seconds"), |at| at > first);
    prometheus.has(&of("last_success_timestamp_seconds"), is(first));

    fs::remove_file(sandbox.base().join("out/a.edi")).unwrap();
    sandbox.run().succeeds();
    prometheus.has(&of("rule_ok"), is(1.0));
    prometheus.has(exit, is(0.0));
    prometheus.has(&of("last_success_timestamp_seconds"), |at| at > first);
    let all = pushgateway.get("/metrics").unwrap();
    assert!(!all.contains("a.edi"), "{all}");
}

/// The dashboard with its variables filled in as Grafana does it.
fn queries(dashboard: &Value, namespace: &str, rule: &str) -> Vec<String> {
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().unwrap());
    let fill = |target: &Value| {
        let mut query = target["expr"].as_str().unwrap().to_owned();
        for variable in dashboard["templating"]["list"].as_array().unwrap() {
            let name = variable["name"].as_str().unwrap();
            let value = match name {
                "namespace" => namespace,
                "rule" => rule,
                _ => variable["current"]["value"].as_str().unwrap_or_default(),
            };
            query = query.replace(&format!("${name}"), value);
        }
        assert!(
            !query.contains('$'),
            "a variable that is not there: {query}"
        );
        query
    };
    targets.map(fill).collect()
}

#[test]
fn every_query_of_the_dashboard_finds_what_a_run_sent_and_nothing_of_other_rules() {
    let pushgateway = Server::pushgateway();
    let prometheus = Server::prometheus(&pushgateway);
    let sandbox = Sandbox::without_minio();
    sandbox.env("BOTS_MOVER_METRICS", &pushgateway.url);
    sandbox.env("POD_NAMESPACE", "edi");
    sandbox.rule("in/850 ü", RULE);
    sandbox.write("in/a.edi", "1234");
    sandbox.run().succeeds();
    let text = include_str!("../../kube/components/dashboard/bots-mover.json");
    let dashboard: Value = serde_json::from_str(text).unwrap();

    // What Grafana offers to choose from.
    let offered = regex::Regex::new(r"^label_values\((.*), (\w+)\)$").unwrap();
    for (name, value) in [("namespace", "edi"), ("rule", "in/850 ü")] {
        let mut variables = dashboard["templating"]["list"].as_array().unwrap().iter();
        let variable = variables.find(|variable| variable["name"] == name).unwrap();
        let asked = variable["query"]["query"].as_str().unwrap();
        let asked = offered.captures(asked).expect(asked);
        let selector = asked[1].replace("$namespace", ".*");
        let query = format!("count by ({}) ({selector})", &asked[2]);
        let has_it = |answer: &str| {
            let series = series_of(answer).unwrap_or_default();
            series.iter().any(|one| one["metric"][name] == value)
        };
        prometheus.wait_for(&path_of(&query), has_it);
    }

    let mut all = 0;
    // "All" of both variables, and one of each.
    for (namespace, rule) in [(".*", ".*"), ("edi", "in/850 ü")] {
        for query in queries(&dashboard, namespace, rule) {
            let found = |answer: &str| series_of(answer).is_some_and(|found| !found.is_empty());
            prometheus.wait_for(&path_of(&query), found);
            all += 1;
        }
    }
    assert!(all >= 16, "only {all}");
    // What is of a run has no rule.
    let of_run = ["bots_mover_exit_code", "bots_mover_build_info"];
    for (namespace, rule) in [("edi", "other"), ("other", ".*")] {
        for query in queries(&dashboard, namespace, rule) {
            if namespace == "edi" && of_run.iter().any(|metric| query.contains(metric)) {
                continue;
            }
            let answer = prometheus.get(&path_of(&query)).unwrap();
            let found = series_of(&answer).expect(&query);
            assert!(found.is_empty(), "{query}: {answer}");
        }
    }
}

#[test]
fn a_prom_file_carries_on_what_it_does_not_replace_and_promtool_likes_it() {
    let (sandbox, file) = with_file();
    sandbox.rule("one", RULE);
    let other = "src: {type: file, path: in2}, dest: {type: file, path: out2}";
    sandbox.rule("two", other);
    sandbox.write("in/a.edi", "1");
    sandbox.write("in2/b.edi", "12");
    sandbox.run().succeeds();
    let success = value(&file, &["_last_success_", "rule=\"one\""]);
    stand_in_the_way(&sandbox);
    sandbox.run_with(&["--rule", "one"]).fails();
    is_exactly(value(&file, &["_rule_ok", "\"one\""]), 0.0);
    is_exactly(value(&file, &["_last_success_", "\"one\""]), success);
    assert!(value(&file, &["_last_run_", "\"one\""]) > success);
    is_exactly(value(&file, &["_rule_ok", "\"two\""]), 1.0);
    is_exactly(value(&file, &["_bytes", "\"two\""]), 2.0);
    is_exactly(value(&file, &["_exit_code"]), 1.0);
    let names: Vec<_> = fs::read_dir(file.parent().unwrap()).unwrap().collect();
    assert_eq!(names.len(), 1, "{names:?}");
    let text = fs::File::open(&file).unwrap();
    let check = Command::new(program("promtool"))
        .args(["check", "metrics"])
        .stdin(text)
        .output()
        .unwrap();
    let said = [check.stdout, check.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(check.status.success() && said.trim().is_empty(), "{said}");
}

/// What stood there cannot be carried on, so it stays as it is.
#[test]
fn a_prom_file_that_cannot_be_read_is_not_replaced() {
    let (sandbox, file) = with_file();
    fs::write(&file, b"\xff").unwrap();
    sandbox.rule("r", RULE);
    sandbox
        .run()
        .succeeds()
        .says("warning", &["read the metrics file"]);
    assert_eq!(fs::read(&file).unwrap(), b"\xff");
}

#[test]
fn what_was_left_behind_is_counted_and_a_file_from_the_future_has_a_negative_age() {
    let (sandbox, file) = with_file();
    sandbox.rule("r", &format!("{RULE}, max_items: 1"));
    let age = |seconds| Duration::from_secs(seconds);
    for (name, seconds) in [("in/a", 7200), ("in/b", 60), ("in/c", 0)] {
        sandbox.write_aged(name, "1", age(seconds));
    }
    sandbox.run().succeeds();
    is_exactly(value(&file, &["_backlog_items"]), 2.0);
    let oldest = value(&file, &["_oldest_item_age_seconds"]);
    assert!((7199.0..7300.0).contains(&oldest), "{oldest}");

    sandbox.forget_rules();
    sandbox.rule("r", &format!("{RULE}, min_age_seconds: 5"));
    for name in ["b", "c"] {
        fs::remove_file(sandbox.base().join("in").join(name)).unwrap();
    }
    let path = sandbox.write("in/late", "1");
    let late = fs::File::open(path).unwrap();
    late.set_modified(SystemTime::now() + age(7200)).unwrap();
    sandbox.run().succeeds();
    let oldest = value(&file, &["_oldest_item_age_seconds"]);
    assert!((-7201.0..-7000.0).contains(&oldest), "{oldest}");
    is_exactly(value(&file, &["_backlog_items"]), 0.0);

    fs::remove_file(sandbox.base().join("in/late")).unwrap();
    sandbox.run().succeeds();
    is_exactly(value(&file, &["_oldest_item_age_seconds"]), 0.0);
}

/// Whatever a rule that was halted had before it, it is not well.
#[test]
fn a_rule_that_another_one_halts_is_not_ok_and_its_items_are_backlog() {
    let (sandbox, file) = with_file();
    sandbox.default("exit_on_first_failure: true");
    sandbox.default("concurrency: 1");
    stand_in_the_way(&sandbox);
    sandbox.write_aged("in/b.edi", "1", Duration::ZERO);
    sandbox.rule("r", &format!("{RULE}, concurrency: 1"));
    sandbox.run().fails();
    let left = value(&file, &["outcome=\"not_started\""]);
    is_exactly(value(&file, &["_backlog_items"]), left);
    is_exactly(value(&file, &["_rule_ok"]), 0.0);
}

#[test]
fn shards_have_series_of_their_own() {
    let (sandbox, file) = with_file();
    sandbox.mkdir("in");
    sandbox.rule("r", RULE);
    sandbox.env("BOTS_MOVER_SHARDS", "2");
    for index in ["0", "1"] {
        sandbox.env("JOB_COMPLETION_INDEX", index);
        sandbox.run().succeeds();
    }
    for index in ["0", "1"] {
        let shard = format!("shard=\"{index}\"");
        is_exactly(value(&file, &["bots_mover_exit_code", &shard]), 0.0);
        is_exactly(value(&file, &["bots_mover_rule_ok", &shard]), 1.0);
    }
}

#[test]
fn a_lock_file_of_bots_is_no_failure_of_the_rule() {
    let (sandbox, file) = with_file();
    sandbox.rule("r", &format!("{RULE}, lock_file: bots.lock"));
    sandbox.write("in/a.edi", "1");
    sandbox.write("in/bots.lock", "");
    sandbox.run().succeeds();
    is_exactly(value(&file, &["_rule_ok"]), 1.0);
}

#[test]
fn a_run_that_a_signal_ends_and_one_that_is_refused_tell_so() {
    let (sandbox, file) = with_file();
    sandbox.rule("r", &format!("{RULE}, retries: 1, wait_seconds: 3600"));
    sandbox.write("in/a.edi", "1");
    let out = sandbox.mkdir("out");
    fs::set_permissions(&out, fs::Permissions::from_mode(0o555)).unwrap();
    sandbox.unprivileged();
    let running = sandbox.start();
    running.wait_for("event=retry");
    running.signal(Signal::TERM);
    sandbox.finish(running).exits(143);
    is_exactly(value(&file, &["_exit_code"]), 143.0);
    is_exactly(value(&file, &["_rule_ok"]), 0.0);

    sandbox.forget_rules();
    sandbox.rule("r", "nonsense: 1");
    sandbox.run().is_refused(&["nonsense"]);
    is_exactly(value(&file, &["_exit_code"]), 2.0);
    is_exactly(value(&file, &["_rule_ok"]), 0.0);
    fs::remove_file(&file).unwrap();
    sandbox.env("TZ", "Nowhere/Else");
    sandbox.run().is_refused(&["TZ"]);
    is_exactly(value(&file, &["_exit_code"]), 2.0);
}

#[test]
fn a_rehearsal_and_a_check_tell_nobody() {
    let (sandbox, file) = with_file();
    sandbox.rule("r", RULE);
    sandbox.write("in/a.edi", "1");
    sandbox.run_with(&["--dry-run"]).succeeds();
    sandbox.run_with(&["check"]).exits(0);
    sandbox.forget_rules().rule("r", "nonsense: 1");
    sandbox.run_with(&["--dry-run"]).exits(2);
    sandbox.run_with(&["check"]).exits(2);
    assert!(!file.exists());
}

/// A server that takes the connection and never answers, one that is not there, and no directory.
#[test]
fn a_failure_to_deliver_is_a_warning_takes_2_s_at_most_and_changes_no_exit_code() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let closed = format!("http://edi:hunter2@127.0.0.1:{}", free_port());
    let silent_url = format!("http://edi:hunter2@{address}");
    for target in [silent_url, closed, "/no/such/folder/a.prom".to_owned()] {
        let sandbox = Sandbox::without_minio();
        sandbox.rule("one", RULE);
        sandbox.rule(
            "two",
            "src: {type: file, path: x}, dest: {type: file, path: y}",
        );
        sandbox.write("in/a.edi", "1");
        let plain = sandbox.run();
        plain.succeeds();
        sandbox.env("BOTS_MOVER_METRICS", &target);
        sandbox.write("in/b.edi", "1");
        let run = sandbox.run();
        run.succeeds()
            .says("warning", &["metrics"])
            .never_says("hunter2");
        let longer = run.elapsed.saturating_sub(plain.elapsed);
        assert!(longer < Duration::from_millis(2700), "{run:?}");
        stand_in_the_way(&sandbox);
        let termination = sandbox.path("termination");
        fs::write(&termination, "").unwrap();
        sandbox.run().fails().never_says("hunter2");
        // What `kubectl describe` shows is how the run ended, not this.
        let termination = fs::read_to_string(&termination).unwrap();
        assert!(termination.contains("run_done"), "{termination}");
        sandbox.forget_rules().rule("r", "nonsense: 1");
        let refused = sandbox.run();
        refused
            .is_refused(&["warning: ", "metrics"])
            .never_says("hunter2");
    }
}

#[test]
fn a_wrong_target_is_refused_and_not_shown() {
    let sandbox = Sandbox::without_minio();
    sandbox.rule("r", RULE);
    for target in ["push:9091", "http://u:hunter2@", "/tmp/hunter2.txt"] {
        sandbox.env("BOTS_MOVER_METRICS", target);
        let run = sandbox.run();
        run.is_refused(&["BOTS_MOVER_METRICS", ".prom"])
            .never_says("hunter2");
    }
}

/// Takes requests and keeps their heads, until somebody asks for these.
fn heads(listener: TcpListener, count: usize, answer: &'static str) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut all = String::new();
        for client in listener.incoming().take(count) {
            let mut client = client.unwrap();
            let mut reader = BufReader::new(client.try_clone().unwrap());
            let mut length = 0;
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                all.push_str(&line);
                if line.trim().is_empty() {
                    break;
                }
            }
            let mut body = reader.take(length);
            std::io::copy(&mut body, &mut std::io::sink()).unwrap();
            client.write_all(answer.as_bytes()).unwrap();
        }
        all
    })
}

#[test]
fn credentials_of_the_url_are_sent_unescaped_by_post_and_a_redirect_does_not_get_them() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let sandbox = Sandbox::without_minio();
    sandbox.rule("r", RULE);
    let target = format!("http://edi:hun%2Fter2@{address}/below/");
    sandbox.env("BOTS_MOVER_METRICS", target);
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let heads_of_run = heads(listener.try_clone().unwrap(), 2, answer);
    let run = sandbox.run();
    run.succeeds();
    assert!(run.of("warning").is_empty(), "{run:?}");
    let all = heads_of_run.join().unwrap();
    assert!(
        all.contains("POST /below/metrics/job/bots-mover/rule/r HTTP/1.1"),
        "{all}"
    );
    assert!(
        all.contains("POST /below/metrics/job/bots-mover HTTP/1.1"),
        "{all}"
    );
    // `edi:hun/ter2`.
    assert_eq!(
        all.to_lowercase().matches("basic zwrpomh1bi90zxiy").count(),
        2,
        "{all}"
    );

    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = elsewhere.local_addr().unwrap();
    let answer = format!(
        "HTTP/1.1 302 Found\r\nLocation: http://{to}/\r\nContent-Length: 0\r\n\
         Connection: close\r\n\r\n"
    );
    let one = heads(listener, 1, Box::leak(answer.into_boxed_str()));
    sandbox
        .run()
        .succeeds()
        .says("warning", &["302"])
        .never_says("ter2");
    one.join().unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    assert!(elsewhere.accept().is_err(), "the redirect was followed");
}
