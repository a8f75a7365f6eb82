package daemon

// lowPorts is what to do about ports that the system keeps for root (ip-sysctl, ip_unprivileged_port_start).
const lowPorts = "Publish a port from 1024 on, or let users have lower ones: `sudo sysctl net.ipv4.ip_unprivileged_port_start=80`."
