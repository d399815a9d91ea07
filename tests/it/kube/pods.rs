//! What every pod may do and has: the profile "restricted", room, memory, time to stop.

use serde_json::{Value, json};

use super::{PROGRAM_MIB, all_pods, list, named};

#[test]
fn every_pod_fits_the_restricted_profile() {
    for (what, pod) in all_pods() {
        let same = |pointer: &str, value: Value| {
            assert_eq!(pod.pointer(pointer), Some(&value), "{what}: {pointer}");
        };
        same("/securityContext/runAsNonRoot", json!(true));
        same("/securityContext/runAsUser", json!(1000));
        same("/securityContext/runAsGroup", json!(1000));
        same("/securityContext/fsGroup", json!(1000));
        let policy = json!("OnRootMismatch");
        same("/securityContext/fsGroupChangePolicy", policy);
        let profile = json!("RuntimeDefault");
        same("/securityContext/seccompProfile/type", profile);
        let container = "/containers/0/securityContext";
        same(
            container,
            json!({
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": { "drop": ["ALL"] },
            }),
        );
        assert_eq!(list(&pod, "/containers").len(), 1, "{what}");
        for absent in [
            "hostNetwork",
            "hostPID",
            "hostIPC",
            "initContainers",
            "serviceAccountName",
        ] {
            assert_eq!(pod.get(absent), None, "{what}: {absent}");
        }
        for volume in list(&pod, "/volumes") {
            let kind = volume
                .as_object()
                .unwrap()
                .keys()
                .find(|key| *key != "name");
            let kind = kind.expect("a volume is of some kind");
            let restricted = ["configMap", "emptyDir", "persistentVolumeClaim"];
            assert!(restricted.contains(&kind.as_str()), "{what}: {volume}");
        }
    }
}

#[test]
fn every_pod_is_told_nothing_of_the_cluster() {
    for (what, pod) in all_pods() {
        for key in ["automountServiceAccountToken", "enableServiceLinks"] {
            assert_eq!(pod.get(key), Some(&json!(false)), "{what}: {key}");
        }
    }
}

#[test]
fn every_pod_stages_on_disk_within_a_limit() {
    for (what, pod) in all_pods() {
        let staging = named(&pod, "/volumes", "staging");
        assert_eq!(staging.pointer("/emptyDir/medium"), None, "{what}");
        let limit = staging.pointer("/emptyDir/sizeLimit");
        assert!(limit.is_some_and(Value::is_string), "{what}: {staging}");
        // Files without a name are not counted against it: the request is what finds them room.
        let request = pod.pointer("/containers/0/resources/requests/ephemeral-storage");
        assert_eq!(request, limit, "{what}");
        let mount = named(&pod, "/containers/0/volumeMounts", "staging");
        assert_eq!(mount["mountPath"], "/tmp", "{what}");
    }
}

#[test]
fn every_pod_has_memory_to_spare_and_fits_a_small_node() {
    for (what, pod) in all_pods() {
        let mebibytes = |pointer: &str| -> u64 {
            let text = pod.pointer(pointer).and_then(Value::as_str);
            let number = text.and_then(|text| text.strip_suffix("Mi"));
            number
                .unwrap_or_else(|| panic!("{what}: {pointer}"))
                .parse()
                .unwrap()
        };
        let request = mebibytes("/containers/0/resources/requests/memory");
        let limit = mebibytes("/containers/0/resources/limits/memory");
        assert!((PROGRAM_MIB..=32).contains(&request), "{what}: {request}");
        assert!((4 * PROGRAM_MIB..=128).contains(&limit), "{what}: {limit}");
        let cpu = pod.pointer("/containers/0/resources/requests/cpu");
        assert!(cpu.is_some(), "{what}");
    }
}

#[test]
fn every_pod_shares_what_it_makes_with_the_group_and_knows_its_time_zone() {
    for (what, pod) in all_pods() {
        for (name, value) in [("BOTS_MOVER_UMASK", "0002"), ("TZ", "UTC")] {
            let variable = named(&pod, "/containers/0/env", name);
            assert_eq!(variable["value"], value, "{what}");
        }
    }
}

#[test]
fn every_pod_has_time_to_stop_and_its_last_words_are_kept() {
    for (what, pod) in all_pods() {
        assert_eq!(pod["terminationGracePeriodSeconds"], 30, "{what}");
        let container = &pod["containers"][0];
        assert_eq!(
            container["terminationMessagePath"], "/dev/termination-log",
            "{what}"
        );
        assert_eq!(
            container["terminationMessagePolicy"], "FallbackToLogsOnError",
            "{what}"
        );
    }
}
