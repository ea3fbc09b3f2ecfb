//! Who the server is towards admission webhooks: `--admission-control-config-file` names a kubeconfig whose users are
//! called after the webhooks' hosts.

use anyhow::{Context, Result};
use base64::Engine;
use http::HeaderValue;
use pki::Kubeconfig;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const PLUGINS: [&str; 2] = ["MutatingAdmissionWebhook", "ValidatingAdmissionWebhook"];

/// Users by the name that a kubeconfig gives them: `host`, `host:port`, `*.rest.of.host`, `*`.
#[derive(Clone, Debug, Default)]
pub struct Users(BTreeMap<String, User>);

/// One user of the kubeconfig.
#[derive(Clone, Debug, Default)]
pub struct User(Kubeconfig);

impl std::ops::Deref for User {
    type Target = Kubeconfig;
    fn deref(&self) -> &Kubeconfig {
        &self.0
    }
}

impl User {
    pub fn new(config: Kubeconfig) -> Self {
        User(config)
    }

    /// The Authorization header of the user's token or password.
    pub fn authorization(&self) -> Option<HeaderValue> {
        let from_file = self.token_file.as_ref().and_then(|path| std::fs::read_to_string(path).ok());
        let token = from_file.or_else(|| self.token.clone());
        let text = match (token, &self.username) {
            (Some(token), _) => format!("Bearer {}", token.trim()),
            (None, Some(name)) => {
                let password = self.password.as_deref().unwrap_or_default();
                let pair = base64::prelude::BASE64_STANDARD.encode(format!("{name}:{password}"));
                format!("Basic {pair}")
            }
            (None, None) => return None,
        };
        let mut value = HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl Users {
    /// Reads `--admission-control-config-file`: an AdmissionConfiguration whose webhook plugins name a kubeconfig.
    pub fn read(path: &Path) -> Result<Self> {
        let flag = "--admission-control-config-file";
        let text = std::fs::read(path).with_context(|| format!("{flag}: cannot read {}", path.display()))?;
        let text = api::codec::yaml_to_json(&text).with_context(|| format!("{flag}: not YAML"))?;
        let file: Value = serde_json::from_slice(&text)?;
        if file["kind"] != "AdmissionConfiguration" {
            anyhow::bail!("{flag}: {} holds no AdmissionConfiguration", path.display());
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut users = BTreeMap::new();
        for plugin in file["plugins"].as_array().into_iter().flatten() {
            if !plugin["name"].as_str().is_some_and(|name| PLUGINS.contains(&name)) {
                continue;
            }
            let configuration = match plugin["path"].as_str().filter(|path| !path.is_empty()) {
                Some(path) => read_yaml(&folder.join(path))?,
                None => plugin["configuration"].clone(),
            };
            let Some(kubeconfig) = configuration["kubeConfigFile"].as_str() else { continue };
            users.extend(read_users(Path::new(kubeconfig))?);
        }
        Ok(Users(users))
    }

    /// The user for a webhook: the exact name, then ever shorter endings, then `*`.
    pub fn find(&self, host: &str, port: i32) -> Option<&User> {
        if self.0.is_empty() {
            return None;
        }
        let with_port = format!("{host}:{port}");
        let names = [Some(with_port.as_str()), (port == 443).then_some(host)];
        for name in names.into_iter().flatten() {
            if let Some(user) = self.0.get(name) {
                return Some(user);
            }
            let dots = name.match_indices('.').map(|(at, _)| &name[at + 1..]);
            for rest in dots {
                if let Some(user) = self.0.get(&format!("*.{rest}")) {
                    return Some(user);
                }
            }
        }
        self.0.get("*")
    }
}

fn read_yaml(path: &PathBuf) -> Result<Value> {
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(serde_json::from_slice(&api::codec::yaml_to_json(&text)?)?)
}

/// Every user of a kubeconfig, read through a context made for it.
fn read_users(path: &Path) -> Result<BTreeMap<String, User>> {
    let file = read_yaml(&path.to_path_buf())?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut users = BTreeMap::new();
    for user in file["users"].as_array().into_iter().flatten() {
        let Some(name) = user["name"].as_str() else { continue };
        let alone = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "x",
            "clusters": [{"name": "x", "cluster": {"server": "https://unused"}}],
            "contexts": [{"name": "x", "context": {"cluster": "x", "user": name}}],
            "users": [user],
        });
        let read = Kubeconfig::parse(&alone.to_string(), folder)
            .with_context(|| format!("user {name:?} of {}", path.display()))?;
        users.insert(name.to_string(), User(read));
    }
    Ok(users)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_ever_shorter_names() {
        let user = |token: &str| User(Kubeconfig { token: Some(token.into()), ..Kubeconfig::default() });
        let names = ["a.x.svc", "*.x.svc", "*", "b.x.svc:8443"];
        let users = Users(names.iter().map(|name| (name.to_string(), user(name))).collect());
        let found = |host: &str, port| users.find(host, port).and_then(|user| user.token.clone()).unwrap();
        assert_eq!(found("a.x.svc", 443), "a.x.svc");
        assert_eq!(found("c.x.svc", 443), "*.x.svc");
        assert_eq!(found("b.x.svc", 8443), "b.x.svc:8443");
        assert_eq!(found("example.com", 443), "*");
        assert!(Users::default().find("a", 443).is_none());
    }
}
