"""Settings → Integrations."""

from django.urls import path

from policystore.integrations.views import changing, deliveries, reading

app_name = "integrations"

urlpatterns = [
    path("", reading.integrations, name="list"),
    path("new/<str:kind>/", changing.new, name="new"),
    path("<int:integration_id>/", reading.integration, name="view"),
    path("<int:integration_id>/edit/", changing.edit, name="edit"),
    path("<int:integration_id>/secret/", changing.renew_secret, name="renew-secret"),
    path("<int:integration_id>/enabled/", changing.set_enabled, name="set-enabled"),
    path("<int:integration_id>/delete/", changing.delete, name="delete"),
    path("<int:integration_id>/test/", deliveries.send_test, name="test"),
    path("<int:integration_id>/deliveries/<int:message_id>/", deliveries.delivery, name="delivery"),
    path("<int:integration_id>/deliveries/<int:message_id>/replay/", deliveries.replay, name="replay"),
]
