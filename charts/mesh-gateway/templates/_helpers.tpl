{{- define "gateway.name" }}{{ .Values.name | default .Release.Name }}{{ end -}}

{{- define "gateway.account" }}
{{- if .Values.serviceAccount.name }}{{ .Values.serviceAccount.name }}
{{- else if .Values.serviceAccount.create }}{{ template "gateway.name" . }}
{{- else }}default{{ end }}
{{- end -}}

{{- /* What the gateway's pods alone have. */ -}}
{{- define "gateway.selector" }}
{{- $name := .Values.name | default .Release.Name }}
      app: {{ .Values.labels.app | default $name | quote }}
      istio: {{ .Values.labels.istio | default (trimPrefix "istio-" $name) | quote }}
{{- end -}}

{{- /* Labels of every object. */ -}}
{{- define "gateway.metadata" }}
  namespace: {{ .Release.Namespace | quote }}
  labels:
    app.kubernetes.io/name: {{ template "gateway.name" . }}
    app.kubernetes.io/instance: {{ .Release.Name | quote }}
    app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
    app.kubernetes.io/part-of: istio
    app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
    helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
    {{- $name := .Values.name | default .Release.Name }}
    app: {{ .Values.labels.app | default $name | quote }}
    istio: {{ .Values.labels.istio | default (trimPrefix "istio-" $name) | quote }}
    {{- range $key, $value := omit .Values.labels "app" "istio" }}
    {{ $key }}: {{ $value | quote }}
    {{- end }}
    {{- with .Values.networkGateway }}
    topology.istio.io/network: {{ . | quote }}
    {{- end }}
{{- end -}}
