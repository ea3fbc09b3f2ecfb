//! WebSocket and SPDY channels for exec, attach and port-forward.
