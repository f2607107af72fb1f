{{- /*
What kustomize makes of a component's patch, as far as our components need it: of the one container and of the pod's volumes.

  convserve.patch   .object: the Deployment, which is changed; .patch: the component's
  convserve.lists   .old, .new: lists of maps; .key: what names their entries. Of the same name the new one counts, in
                    its place; one with "$patch: delete" goes. As {"list": ...}
*/ -}}
{{- define "convserve.patch" -}}
{{- $pod := .object.spec.template.spec }}
{{- $container := first $pod.containers }}
{{- $change := first .patch.spec.template.spec.containers }}
{{- range $name, $key := dict "env" "name" "volumeMounts" "mountPath" }}
  {{- $lists := dict "old" (get $container $name) "new" (get $change $name | default list) "key" $key }}
  {{- $_ := set $container $name (include "convserve.lists" $lists | fromJson).list }}
{{- end }}
{{- $lists := dict "old" $pod.volumes "new" (.patch.spec.template.spec.volumes | default list) "key" "name" }}
{{- $_ := set $pod "volumes" (include "convserve.lists" $lists | fromJson).list }}
{{- range $name := list "startupProbe" "livenessProbe" "readinessProbe" "resources" }}
  {{- $new := get $change $name | default dict }}
  {{- $merged := mergeOverwrite (get $container $name) $new }}
  {{- range $key, $value := $new }}
    {{- if kindIs "invalid" $value }}{{ $_ := unset $merged $key }}{{ end }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "convserve.lists" -}}
{{- $key := .key }}
{{- $new := dict }}
{{- range .new }}{{ $_ := set $new (get . $key) . }}{{ end }}
{{- $found := list }}
{{- range .old }}
  {{- $entry := get $new (get . $key) | default . }}
  {{- if ne (get $entry "$patch" | default "") "delete" }}{{ $found = append $found $entry }}{{ end }}
  {{- $_ := unset $new (get . $key) }}
{{- end }}
{{- range .new }}
  {{- if hasKey $new (get . $key) }}{{ $found = append $found . }}{{ end }}
{{- end }}
{{- dict "list" $found | toJson }}
{{- end }}
