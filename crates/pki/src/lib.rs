//! Certificates, tokens and kubeconfigs.
