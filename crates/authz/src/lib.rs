//! Authorization decisions: RBAC and Node.
