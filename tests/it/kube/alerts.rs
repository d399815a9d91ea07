//! Alerts fire when they should and not otherwise, and each leads to its row in the README.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use super::{ENVIRONMENTS, Kube, list, of_kind, only, programs};

const RULES: &str = "components/alerts/rules.yaml";
const CASES: &str = "components/alerts/rules_test.yaml";

fn parsed(kube: &Kube, file: &str) -> Value {
    serde_yaml::from_str(&kube.read(file)).unwrap()
}

/// The alerts of the plain rules.
fn alerts(kube: &Kube) -> Vec<Value> {
    let groups = list(&parsed(kube, RULES), "/groups");
    let alerts: Vec<Value> = groups
        .iter()
        .flat_map(|group| list(group, "/rules"))
        .collect();
    assert!(alerts.len() >= 9, "only {} alerts", alerts.len());
    alerts
}

/// Runs the cases. The absence of the tool is a failure, as of all tools.
fn promtool(cases: &Path) -> Output {
    let program = programs("promtool")
        .find(|program| program.is_file())
        .expect("promtool is missing; it is in Debian's package prometheus");
    let output = Command::new(program)
        .args(["test", "rules"])
        .arg(cases)
        .output();
    output.expect("promtool can be started")
}

#[test]
fn alerts_fire_when_they_should_and_not_otherwise() {
    let output = promtool(&Kube::new().path(CASES));
    let said = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&said)
    );
}

/// Each of these is an alert that never fires, or that never stops.
#[test]
fn a_broken_alert_is_noticed() {
    for (old, new) in [
        (
            "or max by (namespace, cronjob) (kube_cronjob_created{cronjob=~",
            "or max by (namespace, cronjob) (nothing{cronjob=~",
        ),
        ("kube_cronjob_spec_suspend == 1\n", "nothing\n"),
        (
            "kube_job_failed{condition=\"true\"} == 1,",
            "kube_job_failed,",
        ),
        ("_backlog_items > 0", "_backlog_items > 999"),
        ("_age_seconds < -60", "_age_seconds < 60"),
    ] {
        let kube = Kube::new();
        kube.edit(RULES, old, new);
        assert!(!promtool(&kube.path(CASES)).status.success(), "{old}");
    }
}

#[test]
fn every_alert_has_a_case_in_which_it_fires() {
    let kube = Kube::new();
    let tests = list(&parsed(&kube, CASES), "/tests");
    let fired: Vec<Value> = tests
        .iter()
        .filter(|test| test.get("alert_rule_test").is_some())
        .flat_map(|test| list(test, "/alert_rule_test"))
        .filter(|case| !list(case, "/exp_alerts").is_empty())
        .map(|case| case["alertname"].clone())
        .collect();
    for alert in alerts(&kube) {
        assert!(fired.contains(&alert["alert"]), "{}", alert["alert"]);
    }
}

#[test]
fn an_operator_is_given_the_same_rules() {
    let kube = Kube::new();
    let rule = parsed(&kube, "components/alerts/prometheusrule.yaml");
    assert_eq!(rule["apiVersion"], "monitoring.coreos.com/v1");
    assert_eq!(rule["kind"], "PrometheusRule");
    assert_eq!(rule["spec"], parsed(&kube, RULES));
    for (environment, namespace, ..) in ENVIRONMENTS {
        let place = kube.overlay_with(environment, &["alerts"]);
        let objects = kube.render(&place);
        let rule = only(&objects, "PrometheusRule");
        assert_eq!(rule["metadata"]["namespace"], namespace);
        assert_eq!(of_kind(&objects, "CronJob").count(), 1);
    }
}

#[test]
fn every_alert_leads_to_its_row_in_the_readme() {
    let kube = Kube::new();
    let readme = kube.read("README.md");
    let alerts = alerts(&kube);
    for alert in &alerts {
        let name = alert["alert"].as_str().unwrap();
        let url = alert["annotations"]["runbook_url"].as_str().unwrap();
        let row = url.strip_prefix("kube/README.md#").expect(url);
        let row = format!("| <a id=\"{row}\"></a>`{name}` |");
        assert!(readme.contains(&row), "no row {row}");
        assert!(alert["annotations"]["summary"].is_string(), "{name}");
    }
    let rows = readme.matches("| <a id=").count();
    assert_eq!(rows, alerts.len(), "a row without an alert");
}

/// What the program says of itself stays in a group of its own, which does nothing without it.
#[test]
fn alerts_of_the_cluster_need_nothing_from_the_program() {
    let kube = Kube::new();
    for group in list(&parsed(&kube, RULES), "/groups") {
        let from_program = group["name"] == "bots-mover-rules";
        for rule in list(&group, "/rules") {
            let expr = rule["expr"].as_str().unwrap();
            assert_eq!(expr.contains("bots_mover_"), from_program, "{expr}");
        }
    }
}
