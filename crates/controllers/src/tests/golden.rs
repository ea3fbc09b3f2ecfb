//! Workload and service controllers: a fixture in, a plan out.

use super::{plan, plan_after};
use crate::deployment::Deployments;
use crate::endpoints::EndpointsController;
use crate::endpointslice::EndpointSlices;
use crate::replicaset::ReplicaSets;
use crate::{Failure, Report};
use expect_test::{Expect, expect};

const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop, generation: 1}
spec:
  replicas: 2
  progressDeadlineSeconds: 600
  selector: {matchLabels: {app: web}}
  strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 25%, maxUnavailable: 25%}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: web:1}]}
";

const SET: &str = "
apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: web, namespace: shop, generation: 1}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: web:1}]}
";

fn pod(name: &str, owner: &str, ip: &str, ready: &str) -> String {
    let owners = match owner {
        "" => String::new(),
        owner => format!(
            "\n  ownerReferences: [{{apiVersion: apps/v1, kind: ReplicaSet, name: {owner}, uid: uid-{owner}, controller: true}}]"
        ),
    };
    format!(
        "
---
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: shop
  labels: {{app: web}}{owners}
spec:
  nodeName: n1
  containers: [{{name: web, ports: [{{name: http, containerPort: 8080}}]}}]
status:
  phase: Running
  podIP: {ip}
  podIPs: [{{ip: {ip}}}]
  conditions: [{{type: Ready, status: '{ready}', lastTransitionTime: '2026-01-01T00:00:00Z'}}]
"
    )
}

fn check(actual: String, expected: Expect) {
    expected.assert_eq(&actual);
}

#[test]
fn a_new_deployment_makes_its_set() {
    check(
        plan(&Deployments, DEPLOYMENT, "shop/web"),
        expect![[r#"
            create ReplicaSet {"apiVersion":"apps/v1","kind":"ReplicaSet","metadata":{"annotations":{"deployment.kubernetes.io/desired-replicas":"2","deployment.kubernetes.io/max-replicas":"3","deployment.kubernetes.io/revision":"1"},"labels":{"app":"web","pod-template-hash":"7c647988f9"},"name":"web-7c647988f9","namespace":"shop","ownerReferences":[{"apiVersion":"apps/v1","blockOwnerDeletion":true,"controller":true,"kind":"Deployment","name":"web","uid":"uid-web"}]},"spec":{"replicas":2,"selector":{"matchLabels":{"app":"web","pod-template-hash":"7c647988f9"}},"template":{"metadata":{"labels":{"app":"web","pod-template-hash":"7c647988f9"}},"spec":{"containers":[{"image":"web:1","name":"web","resources":{}}]}}}}
              then Normal ScalingReplicaSet on Deployment web: Scaled up replica set web-7c647988f9 from 0 to 2
              else Warning ReplicaSetCreateError on Deployment web: Failed to create new replica set "web-7c647988f9": {error}
            update Deployment {"apiVersion":"apps/v1","kind":"Deployment","metadata":{"annotations":{"deployment.kubernetes.io/revision":"1"},"generation":1,"name":"web","namespace":"shop","resourceVersion":"1","uid":"uid-web"},"spec":{"progressDeadlineSeconds":600,"replicas":2,"selector":{"matchLabels":{"app":"web"}},"strategy":{"rollingUpdate":{"maxSurge":"25%","maxUnavailable":"25%"},"type":"RollingUpdate"},"template":{"metadata":{"labels":{"app":"web"}},"spec":{"containers":[{"image":"web:1","name":"web","resources":{}}]}}}}
            again in 601000 ms
        "#]],
    );
}

#[test]
fn a_refused_set_is_told_of() {
    let failure = Failure {
        verb: "create",
        code: 403,
        reason: "Forbidden".into(),
        message: "replicasets.apps is forbidden".into(),
    };
    let report = Report::Failed(failure);
    check(
        plan_after(&Deployments, DEPLOYMENT, "shop/web", Some(&report), None),
        expect![[r#"
            create ReplicaSet {"apiVersion":"apps/v1","kind":"ReplicaSet","metadata":{"annotations":{"deployment.kubernetes.io/desired-replicas":"2","deployment.kubernetes.io/max-replicas":"3","deployment.kubernetes.io/revision":"1"},"labels":{"app":"web","pod-template-hash":"7c647988f9"},"name":"web-7c647988f9","namespace":"shop","ownerReferences":[{"apiVersion":"apps/v1","blockOwnerDeletion":true,"controller":true,"kind":"Deployment","name":"web","uid":"uid-web"}]},"spec":{"replicas":2,"selector":{"matchLabels":{"app":"web","pod-template-hash":"7c647988f9"}},"template":{"metadata":{"labels":{"app":"web","pod-template-hash":"7c647988f9"}},"spec":{"containers":[{"image":"web:1","name":"web","resources":{}}]}}}}
              then Normal ScalingReplicaSet on Deployment web: Scaled up replica set web-7c647988f9 from 0 to 2
              else Warning ReplicaSetCreateError on Deployment web: Failed to create new replica set "web-7c647988f9": {error}
            update Deployment/status web: {"conditions":[{"lastTransitionTime":"2026-01-01T00:10:00Z","lastUpdateTime":"2026-01-01T00:10:00Z","message":"Failed to create new replica set \"web-7c647988f9\": replicasets.apps is forbidden","reason":"ReplicaSetCreateError","status":"False","type":"Progressing"},{"lastTransitionTime":"2026-01-01T00:10:00Z","lastUpdateTime":"2026-01-01T00:10:00Z","message":"Deployment does not have minimum availability.","reason":"MinimumReplicasUnavailable","status":"False","type":"Available"}],"observedGeneration":1,"terminatingReplicas":0}
            again in 601000 ms
        "#]],
    );
}

#[test]
fn a_name_that_is_taken_by_another_set_is_avoided() {
    let taken = SET.replace("name: web,", "name: web-NAME,");
    let made = plan(&Deployments, DEPLOYMENT, "shop/web");
    let name = made.split("\"name\":\"web-").nth(1).and_then(|rest| rest.split('"').next());
    let name = name.expect("the plan names the set");
    let fixture = format!("{DEPLOYMENT}\n---\n{}", taken.replace("NAME", name).replace("app: web", "app: x"));
    check(
        plan(&Deployments, &fixture, "shop/web"),
        expect![[r#"
        update Deployment/status web: {"collisionCount":1,"conditions":[{"lastTransitionTime":"2026-01-01T00:10:00Z","lastUpdateTime":"2026-01-01T00:10:00Z","message":"Deployment does not have minimum availability.","reason":"MinimumReplicasUnavailable","status":"False","type":"Available"}],"observedGeneration":1,"terminatingReplicas":0}
    "#]],
    );
}

#[test]
fn a_set_makes_what_is_missing_and_adopts_what_matches() {
    let fixture = SET.to_string() + &pod("a", "", "10.0.0.1", "True");
    check(
        plan(&ReplicaSets, &fixture, "shop/web"),
        expect![[r#"
            patch Pod shop/a: {"metadata":{"ownerReferences":[{"apiVersion":"apps/v1","blockOwnerDeletion":true,"controller":true,"kind":"ReplicaSet","name":"web","uid":"uid-web"}],"uid":"uid-a"}}
            create Pod {"apiVersion":"v1","kind":"Pod","metadata":{"generateName":"web-","labels":{"app":"web"},"namespace":"shop","ownerReferences":[{"apiVersion":"apps/v1","blockOwnerDeletion":true,"controller":true,"kind":"ReplicaSet","name":"web","uid":"uid-web"}]},"spec":{"containers":[{"image":"web:1","name":"web","resources":{}}]}}
              then Normal SuccessfulCreate on ReplicaSet web: Created pod: {name}
              else Warning FailedCreate on ReplicaSet web: Error creating: {error}
            update ReplicaSet/status web: {"availableReplicas":1,"fullyLabeledReplicas":1,"observedGeneration":1,"readyReplicas":1,"replicas":1,"terminatingReplicas":0}
        "#]],
    );
}

#[test]
fn a_set_deletes_the_least_useful_first() {
    let mut fixture = SET.to_string();
    fixture += &pod("a", "web", "10.0.0.1", "True");
    fixture += &pod("b", "web", "10.0.0.2", "False");
    fixture += &pod("c", "web", "10.0.0.3", "True");
    check(
        plan(&ReplicaSets, &fixture, "shop/web"),
        expect![[r#"
            delete Pod shop/b
              then Normal SuccessfulDelete on ReplicaSet web: Deleted pod: b
              else Warning FailedDelete on ReplicaSet web: Error deleting: {error}
            update ReplicaSet/status web: {"availableReplicas":2,"fullyLabeledReplicas":3,"observedGeneration":1,"readyReplicas":2,"replicas":3,"terminatingReplicas":0}
        "#]],
    );
}

#[test]
fn a_set_that_cannot_make_pods_says_so() {
    let failure =
        Failure { verb: "create", code: 403, reason: "Forbidden".into(), message: "exceeded quota".into() };
    let report = Report::Failed(failure);
    check(
        plan_after(&ReplicaSets, SET, "shop/web", Some(&report), None),
        expect![[r#"
            create Pod {"apiVersion":"v1","kind":"Pod","metadata":{"generateName":"web-","labels":{"app":"web"},"namespace":"shop","ownerReferences":[{"apiVersion":"apps/v1","blockOwnerDeletion":true,"controller":true,"kind":"ReplicaSet","name":"web","uid":"uid-web"}]},"spec":{"containers":[{"image":"web:1","name":"web","resources":{}}]}}
              then Normal SuccessfulCreate on ReplicaSet web: Created pod: {name}
              else Warning FailedCreate on ReplicaSet web: Error creating: {error}
            create Pod {"apiVersion":"v1","kind":"Pod","metadata":{"generateName":"web-","labels":{"app":"web"},"namespace":"shop","ownerReferences":[{"apiVersion":"apps/v1","blockOwnerDeletion":true,"controller":true,"kind":"ReplicaSet","name":"web","uid":"uid-web"}]},"spec":{"containers":[{"image":"web:1","name":"web","resources":{}}]}}
              then Normal SuccessfulCreate on ReplicaSet web: Created pod: {name}
              else Warning FailedCreate on ReplicaSet web: Error creating: {error}
            update ReplicaSet/status web: {"conditions":[{"lastTransitionTime":"2026-01-01T00:10:00Z","message":"exceeded quota","reason":"FailedCreate","status":"True","type":"ReplicaFailure"}],"observedGeneration":1,"replicas":0,"terminatingReplicas":0}
        "#]],
    );
}

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop, labels: {team: blue}, creationTimestamp: '2026-01-01T00:00:00Z'}
spec:
  clusterIP: 10.96.0.7
  ipFamilies: [IPv4]
  selector: {app: web}
  ports: [{name: http, port: 80, protocol: TCP, targetPort: http}]
---
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {topology.kubernetes.io/zone: east}}
";

#[test]
fn a_service_has_a_slice_of_its_pods() {
    let mut fixture = SERVICE.to_string();
    fixture += &pod("a", "", "10.0.0.1", "True");
    fixture += &pod("b", "", "10.0.0.2", "False");
    let slices = EndpointSlices { max_endpoints: 100 };
    check(
        plan(&slices, &fixture, "shop/web"),
        expect![[r#"
            create EndpointSlice {"addressType":"IPv4","apiVersion":"discovery.k8s.io/v1","endpoints":[{"addresses":["10.0.0.1"],"conditions":{"ready":true,"serving":true,"terminating":false},"nodeName":"n1","targetRef":{"kind":"Pod","name":"a","namespace":"shop","uid":"uid-a"},"zone":"east"},{"addresses":["10.0.0.2"],"conditions":{"ready":false,"serving":false,"terminating":false},"nodeName":"n1","targetRef":{"kind":"Pod","name":"b","namespace":"shop","uid":"uid-b"},"zone":"east"}],"kind":"EndpointSlice","metadata":{"annotations":{"endpoints.kubernetes.io/last-change-trigger-time":"2026-01-01T00:00:00Z"},"generateName":"web-","labels":{"endpointslice.kubernetes.io/managed-by":"endpointslice-controller.k8s.io","kubernetes.io/service-name":"web","team":"blue"},"namespace":"shop","ownerReferences":[{"apiVersion":"v1","blockOwnerDeletion":true,"controller":true,"kind":"Service","name":"web","uid":"uid-web"}]},"ports":[{"name":"http","port":8080,"protocol":"TCP"}]}
              else Warning FailedToUpdateEndpointSlices on Service web: Error updating Endpoint Slices for Service shop/web: {error}
        "#]],
    );
    check(
        plan(&EndpointsController, &fixture, "shop/web"),
        expect![[r#"
            create Endpoints {"apiVersion":"v1","kind":"Endpoints","metadata":{"annotations":{"endpoints.kubernetes.io/last-change-trigger-time":"2026-01-01T00:00:00Z"},"labels":{"endpoints.kubernetes.io/managed-by":"endpoint-controller","team":"blue"},"name":"web","namespace":"shop"},"subsets":[{"addresses":[{"ip":"10.0.0.1","nodeName":"n1","targetRef":{"kind":"Pod","name":"a","namespace":"shop","uid":"uid-a"}}],"notReadyAddresses":[{"ip":"10.0.0.2","nodeName":"n1","targetRef":{"kind":"Pod","name":"b","namespace":"shop","uid":"uid-b"}}],"ports":[{"name":"http","port":8080,"protocol":"TCP"}]}]}
              else Warning FailedToCreateEndpoint on Service web: Failed to create endpoint for service shop/web: {error}
        "#]],
    );
}

#[test]
fn a_service_without_pods_has_an_empty_slice() {
    let slices = EndpointSlices { max_endpoints: 100 };
    check(
        plan(&slices, SERVICE, "shop/web"),
        expect![[r#"
            create EndpointSlice {"addressType":"IPv4","apiVersion":"discovery.k8s.io/v1","endpoints":null,"kind":"EndpointSlice","metadata":{"annotations":{"endpoints.kubernetes.io/last-change-trigger-time":"2026-01-01T00:00:00Z"},"generateName":"web-","labels":{"endpointslice.kubernetes.io/managed-by":"endpointslice-controller.k8s.io","kubernetes.io/service-name":"web","team":"blue"},"namespace":"shop","ownerReferences":[{"apiVersion":"v1","blockOwnerDeletion":true,"controller":true,"kind":"Service","name":"web","uid":"uid-web"}]},"ports":null}
              else Warning FailedToUpdateEndpointSlices on Service web: Error updating Endpoint Slices for Service shop/web: {error}
        "#]],
    );
}

#[test]
fn many_endpoints_are_cut_into_slices() {
    let mut fixture = SERVICE.to_string();
    for number in 0..7 {
        fixture += &pod(&format!("p{number}"), "", &format!("10.0.0.{number}"), "True");
    }
    let slices = EndpointSlices { max_endpoints: 3 };
    let text = plan(&slices, &fixture, "shop/web");
    let counts: Vec<usize> = text
        .lines()
        .filter(|line| line.starts_with("create"))
        .map(|line| line.matches("targetRef").count())
        .collect();
    assert_eq!(counts, [3, 3, 1]);
}
