{{/* capabilities of the node agent: each is needed, and why; test/kube/agent takes each away. */}}
{{- define "fairlead.capabilities" -}}
# loads and attaches programs; enters pods' network namespaces; mounts a procfs of its own, for parameters there
- SYS_ADMIN
# attaches to network devices; rules, routes, marks and source addresses within pods; resets connections
- NET_ADMIN
# reads which namespaces processes of other pods are in
- SYS_PTRACE
{{- end -}}
