{{- /* The control plane's name. */ -}}
{{- define "meshd.name" }}istiod{{ with .Values.revision }}-{{ . }}{{ end }}{{ end -}}

{{- /* Labels of every object. */ -}}
{{- define "meshd.labels" }}
    app: istiod
    istio.io/rev: {{ .Values.revision | default "default" | quote }}
    app.kubernetes.io/name: istiod
    app.kubernetes.io/instance: {{ .Release.Name | quote }}
    app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
    app.kubernetes.io/part-of: istio
    app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
    helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- end -}}

{{- /* What the pods of this revision alone have. */ -}}
{{- define "meshd.selector" }}
      app: istiod
      {{- if .Values.revision }}
      istio.io/rev: {{ .Values.revision | quote }}
      {{- else }}
      istio: pilot
      {{- end }}
{{- end -}}

{{- /* The ports of the Services. */ -}}
{{- define "meshd.ports" }}
  ports:
  - {name: grpc-xds, port: 15010, protocol: TCP}
  - {name: https-dns, port: 15012, protocol: TCP}
  - {name: https-webhook, port: 443, targetPort: 15017, protocol: TCP}
  - {name: http-monitoring, port: 15014, protocol: TCP}
  {{- with .Values.pilot.ipFamilyPolicy }}
  ipFamilyPolicy: {{ . }}
  {{- end }}
  {{- with .Values.pilot.ipFamilies }}
  ipFamilies: {{ toJson . }}
  {{- end }}
{{- end -}}

{{- /* One webhook: takes the root, the name's prefix, the selector of namespaces and that of pods, both as lists of
       expressions. */ -}}
{{- define "meshd.injector" }}
{{- $root := index . 0 }}
- name: {{ index . 1 }}sidecar-injector.istio.io
  clientConfig:
    service:
      name: {{ template "meshd.name" $root }}
      namespace: {{ $root.Release.Namespace | quote }}
      path: {{ $root.Values.sidecarInjectorWebhook.injectionPath | quote }}
      port: 443
  rules:
  - operations: [CREATE]
    apiGroups: [""]
    apiVersions: [v1]
    resources: [pods]
  sideEffects: None
  failurePolicy: Fail
  reinvocationPolicy: {{ $root.Values.sidecarInjectorWebhook.reinvocationPolicy }}
  admissionReviewVersions: [v1]
  namespaceSelector:
    matchExpressions: {{ toJson (index . 2) }}
  objectSelector:
    matchExpressions: {{ toJson (index . 3) }}
{{- end -}}

{{- /* The webhooks of namespaces and pods that name a revision or tag: takes the root and the name. */ -}}
{{- define "meshd.injectors.of" }}
{{- $root := index . 0 }}{{ $rev := index . 1 }}
{{- $named := dict "key" "istio.io/rev" "operator" "In" "values" (list $rev) }}
{{- $no_rev := dict "key" "istio.io/rev" "operator" "DoesNotExist" }}
{{- $no_injection := dict "key" "istio-injection" "operator" "DoesNotExist" }}
{{- $not_refused := dict "key" "sidecar.istio.io/inject" "operator" "NotIn" "values" (list "false") }}
{{- template "meshd.injector" (list $root "rev.namespace." (list $named $no_injection) (list $not_refused)) }}
{{- template "meshd.injector" (list $root "rev.object." (list $no_rev $no_injection) (list $not_refused $named)) }}
{{- if eq $rev "default" }}
{{- $enabled := dict "key" "istio-injection" "operator" "In" "values" (list "enabled") }}
{{- $wanted := dict "key" "sidecar.istio.io/inject" "operator" "In" "values" (list "true") }}
{{- template "meshd.injector" (list $root "namespace." (list $enabled) (list $not_refused)) }}
{{- template "meshd.injector" (list $root "object." (list $no_injection $no_rev) (list $wanted $no_rev)) }}
{{- if $root.Values.sidecarInjectorWebhook.enableNamespacesByDefault }}
{{- $silent := dict "key" "sidecar.istio.io/inject" "operator" "DoesNotExist" }}
{{- $system := list "kube-system" "kube-public" "kube-node-lease" "local-path-storage" }}
{{- $not_system := dict "key" "kubernetes.io/metadata.name" "operator" "NotIn" "values" $system }}
{{- template "meshd.injector" (list $root "auto." (list $no_injection $no_rev $not_system) (list $silent $no_rev)) }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "meshd.clusterrole" }}istiod-clusterrole{{ with .Values.revision }}-{{ . }}{{ end }}-{{ .Release.Namespace }}{{ end -}}
