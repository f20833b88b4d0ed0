{{/* capabilities of the node agent: each is needed, and why. */}}
{{- define "fairlead.capabilities" -}}
# loads and attaches the programs, and makes their maps
- BPF
# attaches to cgroups and network devices; listens within pods; sets marks and source addresses
- NET_ADMIN
# enters pods' network namespaces
- SYS_ADMIN
# reads the namespaces of processes that are not its own
- SYS_PTRACE
# reads BPF programs' types of the kernel, and its event buffers
- PERFMON
# raw sockets
- NET_RAW
# files of other users under /host/proc and in the node's CNI directories
- DAC_OVERRIDE
{{- end -}}
