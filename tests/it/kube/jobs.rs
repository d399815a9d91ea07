//! When runs start and how they end; what is run on demand is like what the schedule runs.

use serde_json::json;

use super::{
    CLAIM, ENVIRONMENTS, Kube, MOUNT, all_objects, claim, config_map_of, job_of, list, named, only,
    pod_of, run_overrides,
};

#[test]
fn environments_are_those_of_bots() {
    let kube = Kube::new();
    for (environment, namespace, schedule, _) in ENVIRONMENTS {
        let objects = kube.render(&format!("overlays/{environment}"));
        for object in &objects {
            assert_eq!(
                object["metadata"]["namespace"], namespace,
                "{environment}: {object}"
            );
        }
        let cronjob = only(&objects, "CronJob");
        assert_eq!(cronjob["spec"]["schedule"], schedule, "{environment}");
        let pod = pod_of(cronjob).unwrap();
        let mount = named(&pod, "/containers/0/volumeMounts", "bots");
        assert_eq!(mount["mountPath"], MOUNT, "{environment}");
        assert_eq!(claim(&pod), CLAIM, "{environment}");
    }
}

#[test]
fn runs_never_overlap_and_always_come_to_an_end() {
    let kube = Kube::new();
    for (environment, _, _, period_secs) in ENVIRONMENTS {
        let objects = kube.render(&format!("overlays/{environment}"));
        let spec = &only(&objects, "CronJob")["spec"];
        assert_eq!(spec["concurrencyPolicy"], "Forbid", "{environment}");
        let start = spec["startingDeadlineSeconds"].as_u64().unwrap();
        // The controller looks every ten seconds.
        assert!((11..period_secs).contains(&start), "{environment}: {start}");
        for limit in ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
            assert!(
                spec[limit].as_u64().is_some_and(|limit| limit > 0),
                "{environment}"
            );
        }
        let job = &spec["jobTemplate"]["spec"];
        for limit in ["activeDeadlineSeconds", "ttlSecondsAfterFinished"] {
            assert!(
                job[limit].as_u64().is_some_and(|limit| limit > 0),
                "{environment}"
            );
        }
        assert_eq!(
            job["template"]["spec"]["restartPolicy"], "Never",
            "{environment}"
        );
    }
}

#[test]
fn a_wrong_config_fails_at_once_and_a_disruption_is_no_failure() {
    for (what, objects) in all_objects() {
        for object in objects {
            let Some(job) = job_of(object) else { continue };
            let limit = match job["completionMode"].as_str() {
                Some("Indexed") => "backoffLimitPerIndex",
                _ => "backoffLimit",
            };
            assert!(job[limit].as_u64().is_some_and(|limit| limit > 0), "{what}");
            let rules = json!([
                {
                    "action": "FailJob",
                    "onExitCodes": {
                        "containerName": "bots-mover", "operator": "In", "values": [2]
                    },
                },
                {
                    "action": "Ignore",
                    "onPodConditions": [{ "type": "DisruptionTarget", "status": "True" }],
                },
            ]);
            assert_eq!(job["podFailurePolicy"]["rules"], rules, "{what}");
            assert_eq!(
                job["template"]["spec"]["containers"][0]["name"],
                "bots-mover"
            );
        }
    }
}

#[test]
fn the_job_is_the_cronjob_with_other_rules() {
    let kube = Kube::new();
    for (environment, namespace, _, _) in ENVIRONMENTS {
        kube.edit(
            "job/kustomization.yaml",
            "overlays/dev",
            &format!("overlays/{environment}"),
        );
        let objects = kube.render("job");
        assert!(objects.iter().all(|object| object["kind"] != "CronJob"));
        let job = only(&objects, "Job");
        assert_eq!(job["metadata"]["namespace"], namespace);
        let environment_objects = kube.render(&format!("overlays/{environment}"));
        let cronjob = only(&environment_objects, "CronJob");
        let ours = config_map_of(&pod_of(job).unwrap());
        let theirs = config_map_of(&pod_of(cronjob).unwrap());
        assert_ne!(ours, theirs, "the Job has rules of its own");
        let renamed = job["spec"].to_string().replace(&ours, &theirs);
        assert_eq!(renamed, job_of(cronjob).unwrap().to_string());
        kube.edit(
            "job/kustomization.yaml",
            &format!("overlays/{environment}"),
            "overlays/dev",
        );
    }
}

#[test]
fn a_pod_from_the_command_line_is_like_one_of_the_cronjob() {
    let objects = Kube::new().render("base");
    let pod = pod_of(only(&objects, "CronJob")).unwrap();
    for (file, overrides) in run_overrides() {
        let labels = &overrides["metadata"]["labels"];
        assert_eq!(labels["app.kubernetes.io/name"], "bots-mover", "{file}");
        let spec = overrides["spec"].as_object().unwrap();
        for (key, value) in spec {
            match key.as_str() {
                "containers" | "volumes" => {}
                _ => assert_eq!(value, &pod[key], "{file}: {key}"),
            }
        }
        for volume in list(&overrides["spec"], "/volumes") {
            let name = volume["name"].as_str().unwrap();
            assert_eq!(volume, named(&pod, "/volumes", name), "{file}");
        }
        let container = overrides["spec"]["containers"][0].as_object().unwrap();
        for (key, value) in container {
            match key.as_str() {
                "name" => assert_eq!(value, "bots-mover-once", "{file}"),
                "workingDir" => assert_eq!(value, MOUNT, "{file}"),
                "volumeMounts" => {
                    for mount in value.as_array().unwrap() {
                        let name = mount["name"].as_str().unwrap();
                        let theirs = named(&pod, "/containers/0/volumeMounts", name);
                        assert_eq!(mount, &theirs, "{file}");
                    }
                }
                _ => assert_eq!(value, &pod["containers"][0][key], "{file}: {key}"),
            }
        }
    }
}
