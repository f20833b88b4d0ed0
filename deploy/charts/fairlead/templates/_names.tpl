{{/* image NAME: the reference of one of the product's images. */}}
{{- define "fairlead.image" -}}
{{ .root.Values.hub }}/{{ .name }}:{{ .root.Values.tag | default .root.Chart.AppVersion }}
{{- end -}}

{{/* labels that everything has; by the first `fairlead` finds what it installed. */}}
{{- define "fairlead.labels" -}}
fairlead.dev/component: {{ .component }}
app.kubernetes.io/part-of: fairlead
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
{{- end -}}

{{- define "fairlead.pullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* env of a map, in the order of names. */}}
{{- define "fairlead.env" -}}
# Go's collector keeps to 90 % of it: without a limit it is the node's memory.
- name: MEMORY_LIMIT
  valueFrom:
    resourceFieldRef:
      resource: limits.memory
{{- range $name, $value := . }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end -}}

{{/* discovery: where agents and waypoints find the control plane, whatever its name resolves to. */}}
{{- define "fairlead.discovery" -}}
istiod.{{ .Release.Namespace }}.svc:15012
{{- end -}}

{{/* podSecurity and containerSecurity are what runs as a user without rights, as Pod Security's level restricted wants it. */}}
{{- define "fairlead.podSecurity" -}}
runAsNonRoot: true
runAsUser: 1337
runAsGroup: 1337
fsGroup: 1337
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "fairlead.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop:
    - ALL
{{- end -}}

{{/* apiServer are the rules by which a pod may ask for names and call the API server. */}}
{{- define "fairlead.apiServer" -}}
- ports:
    - { protocol: UDP, port: 53 }
    - { protocol: TCP, port: 53 }
{{- with .Values.networkPolicy.apiServerPorts }}
- ports:
    {{- range . }}
    - { protocol: TCP, port: {{ . }} }
    {{- end }}
{{- end }}
{{- end -}}
